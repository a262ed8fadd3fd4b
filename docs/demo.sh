#!/usr/bin/env bash
# `make demo`: the whole path in a temporary folder, each command shown as you would type it.
set -euo pipefail

executor=${EXECUTOR:-local}
folder=$(mktemp -d "${TMPDIR:-/tmp}/mtf-demo.XXXXXX")
export GIT_AUTHOR_NAME=${GIT_AUTHOR_NAME:-Demo} GIT_AUTHOR_EMAIL=${GIT_AUTHOR_EMAIL:-demo@localhost}
export GIT_COMMITTER_NAME=$GIT_AUTHOR_NAME GIT_COMMITTER_EMAIL=$GIT_AUTHOR_EMAIL

bold='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\033[1m' plain=$'\033[0m'; fi
step() { printf '\n%s# %s%s\n' "$bold" "$1" "$plain"; }
run() {
  printf '$'
  for word in "$@"; do case $word in *' '*) printf ' "%s"' "$word" ;; *) printf ' %s' "$word" ;; esac; done
  printf '\n'
  "$@"
}

step "A repository for experiments, with a remote to share it"
run cd "$folder"
run git init --quiet --bare -b main lab.git
run mtf init --demo experiments-repo
run cd experiments-repo
run git remote add origin "$folder/lab.git"

step "Commit a grid and push it: this asks for the experiments"
run cat experiments/digits_search.yaml
run git add --all
run git commit --quiet -m "Search learning rate and width on the digits"
run git push --quiet origin main

step "What would a sync do?"
run mtf plan

step "Make the cluster match the repository, and watch"
run mtf sync --wait --executor "$executor"

step "Every run: state, job, checkpoint, best metric (from git alone)"
run mtf status
run mtf results digits_search

step "The best run, its validation accuracy and its checkpoint pointer"
best=$(mtf results digits_search --json | python -c 'import json, sys; print(json.load(sys.stdin)[0]["run"])')
printf '$ mtf show %s --json   # from it:\n' "$best"
mtf show "$best" --json > "$folder/best.json"
python - "$folder/best.json" <<'PY'
import json, sys
best = json.load(open(sys.argv[1]))[0]
accuracy = best["best"]["value"]
print(f"{best['run']}\n  {best['best']['name']} {accuracy:.4f} at epoch {best['best']['epoch']}")
saved = best["best_checkpoint"] or best["checkpoint"]
print(f"  checkpoint {saved['path']}\n  sha256     {saved['sha256']}")
sys.exit(0 if best["best"]["name"] == "val_accuracy" and accuracy >= 0.95 else "the best run did not reach 0.95")
PY

step "All of it is in git: the ledger, here and on the remote"
run git log --oneline --first-parent mtf/ledger
run git ls-remote --heads origin

printf '\nEverything is in %s. Go on there with\n' "$folder/experiments-repo"
printf '  source %s/activate   # puts mtf on the PATH\n' "$(dirname "$(command -v mtf)")"
printf 'A second mtf sync finds nothing to do.\n'
