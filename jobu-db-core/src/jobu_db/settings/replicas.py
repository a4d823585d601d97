"""Replicas: servers that follow the primary of a database, and may answer reads."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator

from jobu_db.settings.address import Address, parse_address
from jobu_db.settings.models import PoolConfig, Settings
from jobu_db.settings.server import ServerSettings, are_addresses
from jobu_db.settings.types import HostRole, Seconds, Text

_ONLY_READS = ("standby", "read-only", "prefer-standby")


class ReplicaSettings(Settings):
    """Where reads may go that ask for a replica."""

    hosts: Annotated[tuple[Text, ...], Field(min_length=1, strict=False)] | None = Field(
        default=None,
        description="The replicas as host:port, each with a pool of its own. Not set: those of "
        "the database's own hosts that are standbys at the time.",
    )
    max_lag: Seconds = Field(
        default=5.0, description="Seconds; a replica that is further behind is not used."
    )
    wait: float = Field(
        default=0.5,
        ge=0,
        description="Seconds that a read waits for what was committed before to reach a replica.",
    )
    fallback: Literal["primary", "error"] = Field(
        default="primary",
        description="Where no replica can answer: the primary does, or an error is raised.",
    )
    pool: PoolConfig = Field(default=PoolConfig(), description="The pool of each replica.")

    @field_validator("hosts")
    @classmethod
    def _are_addresses(cls, hosts: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return are_addresses(hosts)


class ReplicatedSettings(ServerSettings):
    """Settings of a database whose servers may have replicas."""

    target_session_attrs: HostRole = Field(
        default="any", description="Which of several hosts will do."
    )
    replicas: ReplicaSettings | None = None

    @property
    def host_roles(self) -> tuple[HostRole, ...]:
        """The roles of a host that will do, best first: for `jobu_db.hosts.connect_to_one`."""
        wanted = self.target_session_attrs
        return ("standby", "any") if wanted == "prefer-standby" else (wanted,)

    @field_validator("replicas")
    @classmethod
    def _can_be_had(
        cls, replicas: ReplicaSettings | None, info: ValidationInfo
    ) -> ReplicaSettings | None:
        if replicas is None:
            return None
        given, faults = info.data, []
        hosts, role = given.get("hosts"), given.get("target_session_attrs")
        # A field that is wrong is missing here, and None is one that was not given: a mistake in
        # hosts is not told a second time, as if there were none.
        if replicas.hosts is None and "hosts" in given and len(hosts or ()) < 2:
            faults.append(
                "must have hosts, since the database has no other hosts of which some could be "
                "standbys"
            )
        if role in _ONLY_READS:
            faults.append(
                "must not be given where target_session_attrs asks for a server that only reads: "
                "what replicas follow is the primary"
            )
        elif role == "any" and len(hosts or ()) > 1:
            faults.append(
                "must not be given where target_session_attrs is any and there are several hosts, "
                "so that a standby could be taken for the primary: set it to primary"
            )
        if {"host", "hosts", "port"} <= given.keys() and replicas.hosts is not None:
            named = _addresses(replicas.hosts, given["port"])
            if len(set(named)) < len(named):
                faults.append("must not name a host twice")
            own = _addresses(hosts or (given["host"],), given["port"])
            # One of several may well be listed: it is the primary today, and a replica after a
            # failover. A single one can only be the primary.
            if len(own) == 1 and own[0] in named:
                faults.append(
                    "must not have the only host of the database itself among hosts: it is the "
                    "primary"
                )
        pool = given.get("pool")
        if pool is not None and replicas.wait > pool.timeout:
            faults.append("must not have a wait above the timeout of the database's pool")
        if faults:
            raise ValueError("; it ".join(faults))
        return replicas

    @property
    def replica_addresses(self) -> tuple[Address, ...]:
        """Where replicas may be."""
        if self.replicas is None:
            return ()
        hosts = self.replicas.hosts
        return self.addresses if hosts is None else _addresses(hosts, self.port)

    def of_host(self, address: Address) -> Self:
        """Return the settings with which to ask one server how it is, whatever its role."""
        return self._at(address, "any", self.pool)

    def of_replica(self, address: Address) -> Self:
        """Return the settings of the pool that reads from one replica.

        A replica need not be there when the program starts.
        """
        assert self.replicas is not None
        pool = self.replicas.pool
        return self._at(address, "standby", pool.model_copy(update={"lazy": True}))

    def _at(self, address: Address, role: HostRole, pool: PoolConfig) -> Self:
        # A copy keeps what was set and what was not, which `prefers_tls` looks at: settings built
        # anew from the values would all count as set. `hosts` rather than `host`, since the address
        # may have a port other than `port`.
        return self.model_copy(
            update={
                "hosts": (str(address),),
                "target_session_attrs": role,
                "pool": pool,
                "replicas": None,
            }
        )


def _addresses(hosts: tuple[str, ...], port: int) -> tuple[Address, ...]:
    return tuple(Address(host, own or port) for host, own in map(parse_address, hosts))
