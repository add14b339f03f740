"""How a result looks: tables, figures, MLflow."""
