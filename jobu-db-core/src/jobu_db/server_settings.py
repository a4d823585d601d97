"""The path at which backends of other authors import `ServerSettings`; it lives in `settings`."""

from jobu_db.settings import ServerSettings

__all__ = ["ServerSettings"]
