"""A humanoid learns to walk by PPO, physics and learning in one compiled program.

    scripts/run experiments/humanoid_ppo.py
    scripts/run experiments/humanoid_ppo.py --preset ppo/humanoid --num-envs 4096

On CPU the preset is configs/ppo/humanoid_cpu.yaml, sized to walk within ten minutes on two cores; on GPU and TPU it is
configs/ppo/humanoid.yaml, 50 million steps in 2048 environments. Doing nothing returns about 580 here, for staying
alive a second and a half: look at forward_speed and at the animation, which opens in any browser, offline.
"""

import sys

from jaxrl import cli
from jaxrl.reports.episode import record_episodes, save_recording
from jaxrl.runs.driver import run
from jaxrl.runs.judging import eval_key


def main() -> None:
    config, argv = cli.preset("ppo/humanoid", sys.argv[1:])
    config, options = cli.parse(config, __doc__, argv)
    with cli.sentences():
        result = run(config, **options)

    key = eval_key(options["seed"], int(result.state.num_steps))
    played = record_episodes(config, result.state.learner, [key])
    files = [save_recording(result.run_dir / f"animation.{suffix}", played) for suffix in ("html", "gif")]
    print("animation   " + "\n            ".join(str(file) for file in files if file))
    cli.report(result)


if __name__ == "__main__":
    main()
