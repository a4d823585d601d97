"""Logging in without giving the password to any server that answers.

The server chooses how the password is proven, and a false one chooses the way that suits it:

- mysql_native_password, client_ed25519 and the first part of caching_sha2_password prove the
  password without telling it. They are always answered.
- caching_sha2_password and sha256_password may ask for the password itself: as it is over TLS or a
  Unix socket, else encrypted by the server's public key. Who that is must be known: by TLS that is
  configured, by a Unix socket, or by `server_public_key`. A key that the server sends by itself is
  taken on a loopback address alone.
- mysql_clear_password and dialog always ask for the password itself. They are answered over TLS
  that is configured and over a Unix socket.

What is refused here can be allowed by the plugin's name, in `unsafe_logins`. All else is refused.
"""

# asyncmy annotates little.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, NamedTuple

from asyncmy import auth
from asyncmy.errors import OperationalError

from jobu_db.settings.address import is_loopback

OK, MORE, SWITCH = 0x00, 0x01, 0xFE
"""First bytes of the server's packets while it logs somebody in."""

FIRST_PLUGINS = frozenset({"", "caching_sha2_password", "mysql_native_password"})
"""Those whose first answer tells no password, so that it may go with the request to log in."""

UnsafePlugin = Literal["caching_sha2_password", "dialog", "mysql_clear_password", "sha256_password"]

_CANNOT_LOG_IN = 2061
"""The clients' number for an error of a plugin that logs in."""

_MOST_SWITCHES = 4
_NONCE = 20
_ALREADY_PROVEN, _PASSWORD_WANTED = 3, 4
_KEY_WANTED = {"caching_sha2_password": b"\2", "sha256_password": b"\1"}


class Peer(NamedTuple):
    """Whom the password may be given to.

    Attributes:
        secure: It cannot be listened to: a Unix socket, or TLS.
        known: And it is known who that is, as far as the configuration wants to know.
        loopback: It is on this machine.
        public_key: The server's, in PEM; None if it is not configured.
        allowed: Plugins that are allowed by name.
    """

    secure: bool
    known: bool
    loopback: bool
    public_key: bytes | None
    allowed: frozenset[str]


class LoginRules(NamedTuple):
    """What is configured of logging in.

    Attributes:
        tls_is_optional: Encrypt if the server can; its identity is not known by that.
        public_key: The server's, in PEM; None if it is not configured.
        allowed: Plugins that are allowed by name.
    """

    tls_is_optional: bool = False
    public_key: bytes | None = None
    allowed: frozenset[str] = frozenset()

    def for_peer(self, there: Any, encrypted: bool) -> Peer:
        """Say what holds for the server at the other end, given its socket address."""
        by_socket = not isinstance(there, tuple)
        return Peer(
            secure=by_socket or encrypted,
            known=by_socket or (encrypted and not self.tls_is_optional),
            loopback=not by_socket and is_loopback(there[0]),
            public_key=self.public_key,
            allowed=self.allowed,
        )


NO_RULES = LoginRules()


class Login:
    """Answers the server until it lets us in.

    Args:
        plugin: How the server begins, and `nonce` what it has given to prove the password with.
        exchange: Sends a packet, or nothing for None, and returns the server's next one; raises
            what the server says if it refuses.
    """

    def __init__(
        self,
        peer: Peer,
        password: bytes,
        plugin: str,
        nonce: bytes,
        exchange: Callable[[bytes | None], Awaitable[bytes]],
    ) -> None:
        self._peer = peer
        self._password = password
        self._plugin = plugin
        self._nonce = nonce
        self._exchange = exchange

    async def answer(self, packet: bytes) -> None:
        """Answer what the server sent first, and what follows.

        Raises:
            OperationalError: The server refuses us, or wants what it must not be given.
        """
        switches = 0
        while packet[:1] != bytes([OK]):
            # A limit, since a server could ask for another plugin without end.
            if packet[:1] == bytes([SWITCH]) and switches < _MOST_SWITCHES:
                switches += 1
                packet = await self._switch(packet)
            elif packet[:1] == bytes([MORE]) and self._plugin == "caching_sha2_password":
                packet = await self._go_on(packet)
            else:
                raise _refusal(f"the server does not follow the protocol of {self._name}")

    async def _switch(self, packet: bytes) -> bytes:
        name, _, data = packet[1:].partition(b"\0")
        # A server that names none means the oldest plugin, which is not safe to answer.
        self._plugin = name.decode("ascii", "replace") or "mysql_old_password"
        # A NUL stands behind it.
        self._nonce = data[:_NONCE]
        password = self._password
        if self._plugin == "mysql_native_password":
            return await self._exchange(auth.scramble_native_password(password, self._nonce))
        if self._plugin == "caching_sha2_password":
            return await self._exchange(auth.scramble_caching_sha2(password, self._nonce))
        if self._plugin == "client_ed25519":
            try:
                proof = auth.ed25519_password(password, data[:32])
            except RuntimeError as error:  # PyNaCl is not installed
                raise _refusal(str(error)) from error
            return await self._exchange(proof)
        if self._plugin == "sha256_password":
            return await self._send_password()
        if self._plugin == "mysql_clear_password":
            self._demand(self._peer.known)
            return await self._exchange(password + b"\0")
        if self._plugin == "dialog":
            self._demand(self._peer.known)
            return await self._hold_dialog(data)
        raise _refusal(f"the server asks for the plugin {self._name}, which is not supported")

    async def _go_on(self, packet: bytes) -> bytes:
        if packet[1:] == bytes([_ALREADY_PROVEN]):
            return await self._exchange(None)
        if packet[1:] == bytes([_PASSWORD_WANTED]):
            return await self._send_password()
        raise _refusal(f"the server does not follow the protocol of {self._name}")

    async def _send_password(self) -> bytes:
        """Send the password itself, to a server that is known."""
        peer, password = self._peer, self._password
        if not password:
            return await self._exchange(b"\0")
        # Over TLS or a socket the protocol has it in clear, which only a server that is known may
        # have. With a key it goes out encrypted, to the one who has the other half.
        if peer.secure:
            self._demand(peer.known)
            return await self._exchange(password + b"\0")
        key = peer.public_key
        if key is None:
            self._demand(peer.loopback)
            packet = await self._exchange(_KEY_WANTED[self._plugin])
            if packet[:1] != bytes([MORE]):
                raise _refusal("the server sends no public key")
            key = packet[1:]
        try:
            encrypted = auth.sha2_rsa_encrypt(password, self._nonce, key)
        except (ValueError, TypeError, AttributeError) as error:
            raise _refusal("the server's public key is not a valid RSA key") from error
        return await self._exchange(encrypted)

    async def _hold_dialog(self, question: bytes) -> bytes:
        """Answer questions for the password, and no others."""
        for _ in range(_MOST_SWITCHES):
            if not question[1:].lower().startswith(b"password"):
                raise _refusal("the server asks for something other than the password")
            question = await self._exchange(self._password + b"\0")
            if question[:1] == bytes([OK]):
                break
        return question

    def _demand(self, safe: bool) -> None:
        if safe or self._plugin in self._peer.allowed:
            return
        by_key = (
            ", set server_public_key to the server's key"
            if self._plugin in _KEY_WANTED and not self._peer.secure
            else ""
        )
        raise _refusal(
            f"the server asks for the password itself (by {self._name}), and its identity is not "
            f"verified: set ssl to verify-full or require{by_key}, or allow it with "
            f"unsafe_logins: [{self._plugin}]"
        )

    @property
    def _name(self) -> str:
        # It comes from the server: not all of it is fit to be shown.
        return "".join(c for c in self._plugin if c.isalnum() or c == "_")[:64] or "no plugin"


def _refusal(text: str) -> OperationalError:
    return OperationalError(_CANNOT_LOG_IN, text)
