"""The settings: from a YAML file or a mapping to frozen models, with every problem told at once.

`yaml_file`   reads a file as plain data; it may be broken, or hostile
`variables`   `${NAME}` in its texts
`loader`      which databases there are, and the settings of those to be opened
`models`      the models of pools and databases; `types` are their fields' types
`server`      what databases on a server share; `address`, `url`, `tls` are its parts
`replicas`    servers that only answer reads
`files`       reading the files that settings name
`validation`  what was given for one mapping, and what is wrong with it in the giver's words
`messages`    how that is worded, so that no secret is ever repeated
"""

from jobu_db.settings.address import Address
from jobu_db.settings.loader import ConfigSource, load_config
from jobu_db.settings.models import DatabaseSettings, OnConnect, PoolConfig, Settings
from jobu_db.settings.replicas import ReplicaSettings, ReplicatedSettings
from jobu_db.settings.server import ServerSettings
from jobu_db.settings.tls import TLSSettings
from jobu_db.settings.types import (
    CountOrOff,
    FilePath,
    HostRole,
    MillisecondsOrOff,
    PoolSize,
    Port,
    Seconds,
    SecondsOrOff,
    Text,
)
from jobu_db.settings.url import UrlParameter, ssl_mode

__all__ = [
    "Address",
    "ConfigSource",
    "CountOrOff",
    "DatabaseSettings",
    "FilePath",
    "HostRole",
    "MillisecondsOrOff",
    "OnConnect",
    "PoolConfig",
    "PoolSize",
    "Port",
    "ReplicaSettings",
    "ReplicatedSettings",
    "Seconds",
    "SecondsOrOff",
    "ServerSettings",
    "Settings",
    "TLSSettings",
    "Text",
    "UrlParameter",
    "load_config",
    "ssl_mode",
]
