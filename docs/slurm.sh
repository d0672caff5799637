#!/bin/bash
# One session on one node of a Slurm cluster, gone on with until it is proven:   sbatch docs/slurm.sh NAME
# Before: fluxtui new NAME … on any node; FLUXTUI_HOME on a disk that all nodes see. Beside it, from anywhere: fluxtui logs NAME -f.
#SBATCH --job-name=fluxtui
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@240
name=${1:?sbatch docs/slurm.sh NAME}

leave() { # preempted (TERM), or four minutes from the time limit (USR1): a checkpoint, then back into the queue
    trap '' TERM USR1
    fluxtui stop "$name"
    fluxtui wait "$name" --timeout 200 && exit 0
    [ "$1" = USR1 ] && scontrol requeue "$SLURM_JOB_ID" # a preempted job is requeued by Slurm itself
    exit 0
}
trap 'leave TERM' TERM
trap 'leave USR1' USR1

fluxtui start "$name" 2>/dev/null || fluxtui resume "$name" || exit
fluxtui wait "$name" --progress &
wait $! # a trap is run at once only while bash waits for a job
