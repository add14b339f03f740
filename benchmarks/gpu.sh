#!/usr/bin/env bash
# Proves and measures on a GPU in one go: `bash benchmarks/gpu.sh FOLDER SECONDS`, with whatever packages the machine
# lacks on PYTHONPATH. FOLDER gets the log and the junit file of tests/gpu, the log of the benchmark, gpu.json and
# gpu.md. It ends after SECONDS: the tests may take 40 % of them, and what the benchmark has measured by then stays.
set -uo pipefail
folder=${1:?the folder for the results} seconds=${2:?the seconds that all may take}
cd "$(dirname "$0")/.."
mkdir -p "${folder}"
export PYTHONPATH="${PWD}${PYTHONPATH:+:${PYTHONPATH}}" HF_HUB_OFFLINE=1
python=${PYTHON:-python3}

timeout -k 5 $((seconds * 2 / 5)) "${python}" -m pytest -q -m gpu tests/gpu -p no:cacheprovider \
  --junitxml="${folder}/tests.xml" >"${folder}/tests.log" 2>&1
tests=$?
tail -n 15 "${folder}/tests.log"

left=$((seconds - SECONDS - 10))
timeout -k 5 "${left}" "${python}" -m benchmarks.gpu -o "${folder}/gpu.json" --deadline $((left - 30)) "${@:3}" \
  2>"${folder}/benchmark.log"
benchmark=$?
tail -n 15 "${folder}/benchmark.log"
"${python}" -m benchmarks.gpu --table "${folder}/gpu.json" | tee "${folder}/gpu.md"
echo "tests: ${tests}, benchmark: ${benchmark} (0: passed, 5: no test ran, 124: out of time)"
((tests == 0 && benchmark == 0))
