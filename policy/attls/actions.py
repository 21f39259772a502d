"""What becomes of a connection: the group, environment and connection actions of a TTLSRule, as one action.

The connection action wins over the environment action, as in AT-TLS. Versions below 1.2 and suites without an AEAD are
gone from this product; they are named, and what is left is used.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ktls.ciphers import SUITES
from policy.attls.references import Library
from policy.attls.statements import Parameter, Statement
from policy.problems import quote

CLIENT_AUTH = {"passthru": "passthru", "full": "full", "required": "required", "safcheck": "map"}
VERSIONS = {"tlsv1.2": "1.2", "tlsv1.3": "1.3"}
GONE = ("sslv2", "sslv3", "tlsv1", "tlsv1.1")
PARTS = (
    "TTLSEnvironmentAdvancedParms", "TTLSConnectionAdvancedParms", "TTLSGskAdvancedParms", "TTLSGroupAdvancedParms",
    "TTLSGskLdapParms", "TTLSGskHttpCdpParms", "TTLSGskOcspParms",
)  # fmt: skip
"""Statements whose parameters count as those of the action that has them."""
NEEDLESS = {
    "environmentuserinstance": "changed files are noticed by their content, no counter is needed",
    "groupuserinstance": "changed files are noticed by their content, no counter is needed",
    "trace": "the agent's report has every connection",
    "filetype": "", "ctracecleartext": "no clear text is ever traced",
}  # fmt: skip
SWITCHES = ("ttlsenabled", "applicationcontrolled", "secondarymap", *VERSIONS, *GONE)
NUMBERS = ("handshaketimeout", "resetciphertimer", "gsk_v3_session_timeout", "gsk_session_tickets_server_timeout")
VALUES = dict.fromkeys(SWITCHES, ("on", "off")) | {
    "handshakerole": ("client", "server", "serverwithclientauth"),
    "clientauthtype": tuple(CLIENT_AUTH),
}
KNOWN = {*VALUES, *NUMBERS, "certificatelabel"}


@dataclass(slots=True)
class Translated:
    """An action here.

    Args:
        verdict: "tls" or "clear".
        action: keys of the action.
        comments: for a person.
        keyring: its name and table; None for none.
    """

    verdict: str = "tls"
    action: dict[str, object] = field(default_factory=dict)
    comments: list[str] = field(default_factory=list)
    keyring: tuple[str, str] | None = None


def action_of(rule: Statement, library: Library) -> Translated:
    """Translate the actions of a rule."""
    made = Translated()
    groups = list(library.within(rule, "TTLSGroupAction"))
    environments = list(library.within(rule, "TTLSEnvironmentAction"))
    connections = list(library.within(rule, "TTLSConnectionAction"))
    parameters: dict[str, Parameter] = {}
    for one in (*groups, *environments, *connections):
        for held in (one, *(part for kind in PARTS for part in library.within(one, kind))):
            parameters |= {parameter.key.lower(): parameter for parameter in held.parameters}
    said = {key: " ".join(parameter.words) for key, parameter in parameters.items()}
    _odd(said, parameters, library)
    if said.get("ttlsenabled", "on").lower() == "off" or not groups:
        made.verdict = "clear"
        return made
    _role(said, made)
    if made.action.get("client_auth") == "map":
        line = parameters["clientauthtype"].line
        library.notes.add(line, "ClientAuthType SAFCheck: RACF is not asked; say in [[map]] tables who is whom")
    _versions(said, parameters, library, made)
    _ciphers([*environments, *connections], library, made)
    _settings(said, made)
    _keyring(environments, said, library, made)
    _rest(parameters, library)
    return made


def _odd(said: dict[str, str], at: dict[str, Parameter], library: Library) -> None:
    """Note values that mean nothing, as where a line holds two parameters: they count as if they were not there."""
    for key, value in said.items():
        fits = VALUES.get(key)
        if fits is not None and value.lower() not in fits:
            library.notes.add(at[key].line, f"{at[key].key} {value}: not understood; it is one of {', '.join(fits)}")
        elif key in NUMBERS and not value.isdigit():
            library.notes.add(at[key].line, f"{at[key].key} {value}: not understood; it is a number")


def _role(said: dict[str, str], made: Translated) -> None:
    role = said.get("handshakerole", "").lower()
    if role in ("client", "server", "serverwithclientauth"):
        made.action["role"] = "client" if role == "client" else "server"
    if role == "serverwithclientauth":
        made.action["client_auth"] = CLIENT_AUTH.get(said.get("clientauthtype", "required").lower(), "required")


def _versions(said: dict[str, str], at: dict[str, Parameter], library: Library, made: Translated) -> None:
    wanted = [version for key, version in VERSIONS.items() if said.get(key, "").lower() == "on"]
    refused = [version for key, version in VERSIONS.items() if said.get(key, "").lower() == "off"]
    for key in GONE:
        if said.get(key, "").lower() == "on":
            library.notes.add(at[key].line, f"{at[key].key} On: below TLS 1.2, which nothing here speaks")
    if wanted == ["1.2"] or "1.3" in refused:
        made.action["max_version"] = "1.2"
    if wanted == ["1.3"] and "1.2" in refused:
        made.action["min_version"] = "1.3"


def _suites(parameter: Parameter) -> Iterator[str]:
    """Names of suites, from names or from their numbers: two digits each, or four (V3CipherSuites4Char)."""
    by_code = {suite.code: suite.iana_name for suite in SUITES}
    digits = 4 if parameter.key.lower().endswith("4char") else 2
    for word in parameter.words:
        if word.upper().startswith(("TLS_", "SSL_")):
            yield word.upper()
        elif re.fullmatch(f"([0-9A-Fa-f]{{{digits}}})+", word):
            for start in range(0, len(word), digits):
                code = int(word[start : start + digits], 16)
                yield by_code.get(code, f"suite {word[start : start + digits].upper()}")
        else:
            yield word


def _ciphers(actions: list[Statement], library: Library, made: Translated) -> None:
    ours = {suite.iana_name for suite in SUITES}
    for action in actions:
        for ciphers in library.within(action, "TTLSCipherParms"):
            given = [
                (parameter, suite)
                for parameter in ciphers.every("V3CipherSuites", "V3CipherSuites4Char")
                for suite in _suites(parameter)
            ]
            for parameter, suite in given:
                if suite not in ours:
                    library.notes.add(parameter.line, f"{suite}: no AEAD of TLS 1.2 or 1.3, left out")
            kept = [suite for _, suite in given if suite in ours]
            if kept:
                made.action["ciphers"] = list(dict.fromkeys(kept))
            elif given:
                made.comments.append("None of the cipher suites named is left; all that are served here may be used.")
            for parameter in ciphers.parameters:
                if not parameter.key.lower().startswith("v3ciphersuites"):
                    words = " ".join((parameter.key, *parameter.words))
                    library.notes.add(parameter.line, f"{words}: no counterpart, left out")


def _settings(said: dict[str, str], made: Translated) -> None:
    timeout = said.get("handshaketimeout", "")
    if timeout.isdigit():
        made.action["handshake_timeout"] = min(int(timeout), 3600) or 3600  # 0 is none there, and a bound here
    if said.get("applicationcontrolled", "").lower() == "on":
        made.action["application_controlled"] = True
    if said.get("secondarymap", "").lower() == "on":
        made.action["secondary"] = True
    minutes = said.get("resetciphertimer", "")
    if minutes.isdigit() and int(minutes) > 0:
        made.action["rekey"] = {"seconds": int(minutes) * 60}
    lifetime = said.get("gsk_session_tickets_server_timeout") or said.get("gsk_v3_session_timeout", "")
    if lifetime.isdigit():
        made.action["resumption"] = {"lifetime": min(int(lifetime), 604_800)} if int(lifetime) else {"tickets": False}


def _keyring(environments: list[Statement], said: dict[str, str], library: Library, made: Translated) -> None:
    for environment in environments:
        for parms in library.within(environment, "TTLSKeyringParms"):
            ring = parms.value("Keyring") or "keyring"
            label = said.get("certificatelabel")
            name = re.sub(r"[^A-Za-z0-9_-]+", "-", f"{ring} {label}" if label else ring).strip("-") or "keyring"
            lines = [
                f"# The keyring {quote(ring)[1:-1]}" + (f", its certificate {quote(label)[1:-1]}" if label else "")
            ]
            lines[0] += ": export the chain, the key and the authorities as PEM to these files."
            lines += [
                f'[keyring.{name}]\ncertificate = "{name}.pem"\nprivate_key = "{name}.key"\ntrust = ["{name}-ca.pem"]'
            ]
            made.action["keyring"] = name
            made.keyring = name, "\n".join(lines) + "\n"
            library.notes.add(
                parms.line, f"Keyring {ring}: a ring of z/OS or a key database; PEM files are named instead"
            )
            for parameter in parms.every("KeyringPw", "KeyringStashFile"):
                library.notes.add(parameter.line, f"{parameter.key}: not taken over; see password_file")
            for parameter in parms.parameters:
                if parameter.key.lower() not in ("keyring", "keyringpw", "keyringstashfile"):
                    words = " ".join((parameter.key, *parameter.words))
                    library.notes.add(parameter.line, f"{words}: no counterpart, left out")


def _rest(parameters: dict[str, Parameter], library: Library) -> None:
    for key, parameter in parameters.items():
        if key in KNOWN or key.endswith("ref"):
            continue
        why = NEEDLESS.get(key, "no counterpart")
        words = " ".join((parameter.key, *parameter.words))
        library.notes.add(parameter.line, f"{words}: left out{f', {why}' if why else ''}")
