"""``python -m durable_notify.cli``: the command line."""

from durable_notify.cli import main

if __name__ == "__main__":
    main()
