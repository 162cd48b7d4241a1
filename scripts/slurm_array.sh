#!/bin/sh
# A sweep over the machines of SLURM, one part a task of the array, and its table when all have ended:
#
#   part=$(sbatch --parsable scripts/slurm_array.sh ppo/cartpole --seeds 16 --sweep.learning-rate log:1e-4:1e-2:8)
#   sbatch --dependency=afterok:$part --wrap "scripts/run -m jaxrl merge runs/parts/* runs/merged"
#
# Parts are written to $PARTS (runs/parts), where every machine must see it. A task that was preempted is put back into
# the queue, and goes on from its checkpoints.
#SBATCH --array=1-8
#SBATCH --requeue
#SBATCH --signal=B:TERM@60
#SBATCH --time=04:00:00
#SBATCH --cpus-per-task=8
# A GPU for each: #SBATCH --gpus=1
set -eu
part=${PARTS:-runs/parts}/$SLURM_ARRAY_TASK_ID
if [ -e "$part/sweep.json" ]; then
    set -- resume "$part"
else
    set -- sweep "$@" --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --run-dir "$part"
fi
exec scripts/run -m jaxrl "$@"
