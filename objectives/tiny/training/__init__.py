"""How the embedded scorers were made: ``python -m objectives.tiny.training {clip,reward} --work DIR``."""
