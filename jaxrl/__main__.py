"""`python -m jaxrl`: the command line, where the script `jaxrl` is not on the PATH."""

from jaxrl.cli.command import main

if __name__ == "__main__":
    main()
