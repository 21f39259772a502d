"""`python -m ktls.agent`: an agent in the foreground, for service managers and tests."""

import argparse
import os
import sys
from pathlib import Path

from ktls.agent.main import AgentSettings, run
from ktls.errors import KtlsError
from ktls.sources import find


def main(arguments: list[str] | None = None) -> int:
    """Run an agent as the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m ktls.agent", description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--socket", type=Path, help="where to listen")
    where.add_argument("--listen-fd", type=int, help="an inherited listening SOCK_SEQPACKET socket")
    parser.add_argument("--policy", required=True, help="a file, or a revision of the database: @active, @7")
    parser.add_argument("--log", type=Path, help="append the report here, JSON lines")
    parser.add_argument("--ready-fd", type=int, help='write "ready" here once serving')
    parser.add_argument("--linger", action="store_true", help="go on when nobody is left, until SIGTERM")
    options = parser.parse_args(arguments)
    try:
        run(
            AgentSettings(
                source=find(options.policy, os.environ),
                socket_path=options.socket,
                listen_fd=options.listen_fd,
                log=options.log,
                ready_fd=options.ready_fd,
                shared=options.linger,
            )
        )
    except KtlsError as error:
        print(f"ktls agent: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
