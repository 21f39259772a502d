"""The command line of `ktls run`: its options, and the help that teaches them.

Parsed here and not by click, because this runs before every program started under ktls and click costs more time than
everything else the launcher does.
"""

from typing import NamedTuple, NoReturn

from ktls.errors import UsageError

ENGINES = ("auto", "nic", "kernel", "relay")
PORT_MAX = 65535

HELP = """\
Usage: ktls run [OPTIONS] -- COMMAND [ARGS]...

  Run a program with its TCP connections protected by TLS, as policy says. The
  program is not changed, and neither is how it runs: same process, terminal,
  signals and exit status. Its children are covered too.

Which connections:
  --inbound PORT          connections accepted on this local port are TLS;
                          may be given more than once
  --outbound [HOST:]PORT  connections made to this remote port (of this host
                          only) are TLS; may be given more than once
  --policy FILE           or as a policy file says [env: KTLS_POLICY]; @active
                          for what is in force in the policy database
                          [env: KTLS_POLICY_DATABASE], @7 for a revision of it

Identity and trust, with --inbound and --outbound:
  --cert FILE             certificate chain to show, PEM, leaf first
  --key FILE              its private key, PEM
  --ca FILE               whom to trust, PEM; else the system's store

How:
  --engine NAME           auto (default), nic, kernel or relay; a name other
                          than auto is never replaced by another
  --log FILE              append what happened to each connection, JSON lines
  --observe               decide and record, but leave every connection clear:
                          `ktls policy suggest` makes rules of the record
  --allow-uncovered       run a program that cannot be covered (static,
                          set-user-ID, ...) in clear instead of refusing it
  --help                  this text

Examples:
  ktls run --inbound 8443 --cert web.pem --key web.key -- python3 -m http.server 8443
  ktls run --outbound 8443 --ca ca.pem -- curl http://localhost:8443/
  ktls run --policy site.toml --log /tmp/ktls.log -- nginx -g 'daemon off;'
  KTLS_AGENT=/run/ktls/agent ktls run -- psql      (the policy of a running `ktls agent`)

Exit status:
  2    the command line or the policy is wrong; nothing was run
  125  ktls itself failed; nothing was run
  126  COMMAND was found but cannot be run, or cannot be covered
  127  COMMAND was not found
  else that of COMMAND
"""


class RunOptions(NamedTuple):
    """What `ktls run` was told.

    Attributes:
        command: the program and its arguments; empty only where `help` is set.
        inbound: local ports.
        outbound: (host or None for any, remote port).
        policy: path of a policy file.
        certificate: path of a PEM certificate chain.
        private_key: path of its key.
        trust: path of PEM trust anchors.
        engine: one of ENGINES.
        log: path of the report.
        observe: leave every connection clear.
        allow_uncovered: run what cannot be covered in clear.
        help: show the help instead.
    """

    command: tuple[str, ...] = ()
    inbound: tuple[int, ...] = ()
    outbound: tuple[tuple[str | None, int], ...] = ()
    policy: str | None = None
    certificate: str | None = None
    private_key: str | None = None
    trust: str | None = None
    engine: str | None = None
    log: str | None = None
    observe: bool = False
    allow_uncovered: bool = False
    help: bool = False

    @property
    def ports(self) -> bool:
        """Whether policy is told by ports."""
        return bool(self.inbound or self.outbound)


# Option -> field of RunOptions. The first two may be repeated.
_REPEATED = {"--inbound": "inbound", "--outbound": "outbound"}
_VALUED = {
    "--policy": "policy",
    "--cert": "certificate",
    "--key": "private_key",
    "--ca": "trust",
    "--engine": "engine",
    "--log": "log",
}
_FLAGS = {"--observe": "observe", "--allow-uncovered": "allow_uncovered", "--help": "help", "-h": "help"}


def parse(arguments: list[str]) -> RunOptions:
    """Parse the arguments of `ktls run`.

    Args:
        arguments: what follows `run`.

    Returns:
        The options.

    Raises:
        UsageError: it names the argument and what would be right.

    >>> parse(["--outbound", "db.example:5432", "--", "psql"]).outbound
    (('db.example', 5432),)
    """
    values: dict[str, object] = {}
    repeated: dict[str, list[object]] = {field: [] for field in _REPEATED.values()}
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        if (word := rest.pop(0)) == "--":
            break
        name, equals, attached = word.partition("=")
        if name in _FLAGS and not equals:
            values[_FLAGS[name]] = True
            continue
        if name not in _VALUED and name not in _REPEATED:
            _refuse(f"no such option: {word}")
        value = attached if equals else rest.pop(0) if rest else ""
        if not value or (not equals and value.startswith("--")):
            _refuse(f"{name} needs a value")
        if name in _REPEATED:
            repeated[_REPEATED[name]].append(_port(name, value) if name == "--inbound" else _remote(name, value))
        elif _VALUED[name] in values:
            _refuse(f"{name} is given twice")
        else:
            values[_VALUED[name]] = value
    values.update({field: tuple(items) for field, items in repeated.items()}, command=tuple(rest))
    return _checked(RunOptions(**values))  # type: ignore[arg-type]  # the tables above name fields with their types


def _checked(options: RunOptions) -> RunOptions:
    if options.help:
        return options
    if not options.command:
        _refuse("no command to run")
    if options.engine is not None and options.engine not in ENGINES:
        _refuse(f"--engine {options.engine}: not one of {', '.join(ENGINES)}")
    if options.policy is not None and options.ports:
        _refuse("--policy and --inbound or --outbound: use one or the other")
    if (options.certificate is None) != (options.private_key is None):
        _refuse("--cert and --key: one needs the other")
    keyring = (options.certificate, options.trust, options.engine)
    if not options.ports and any(value is not None for value in keyring):
        _refuse("--cert, --key, --ca and --engine go with --inbound or --outbound; a policy file has its own")
    if options.inbound and options.certificate is None:
        _refuse("--inbound needs --cert and --key: a TLS server shows a certificate")
    return options


def _port(option: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= PORT_MAX):
        _refuse(f"{option} {text}: not a port from 1 to {PORT_MAX}")
    return int(text)


def _remote(option: str, text: str) -> tuple[str | None, int]:
    host, colon, port = text.rpartition(":")
    if colon and not host:
        _refuse(f"{option} {text}: no host before the colon")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        _refuse(f"{option} {text}: an IPv6 address is written [ADDRESS]:PORT")
    return host or None, _port(option, port)


def _refuse(problem: str) -> NoReturn:
    raise UsageError(problem, hint="`ktls run --help` shows the options and examples")
