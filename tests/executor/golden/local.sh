#!/bin/bash
# The local executor sets MTF_JOB_DIR, MTF_INDEX, MTF_RUN_DIR, MTF_JOB_ID and MTF_RESTARTS.
if ! command -v module >/dev/null 2>&1; then
  for init in /etc/profile.d/modules.sh /etc/profile.d/lmod.sh; do [ -r "$init" ] && . "$init"; done
fi
module load cuda/12.4 || exit 78
. '/opt/my envs/mtf/bin/activate' || exit 78
export NCCL_DEBUG=INFO
export MTF_TOKEN=0123456789abcdef
export MTF_SIGNAL_LEAD=120
export MTF_CPUS=8
export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
export PYTHONPATH=/data/runs/.code/abc:/data/runs/.code/abc/src${PYTHONPATH:+:$PYTHONPATH}
mkdir -p "$MTF_RUN_DIR" || exit 78
cd /data/runs/.code/abc || exit 78

exec /usr/bin/python3 -I MTF/executor/local/start_ranks.py 4 python -m mtf.trainer "$MTF_RUN_DIR"
