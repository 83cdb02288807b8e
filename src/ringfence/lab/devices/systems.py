"""How a Redfish service of ours calls its systems."""

import uuid

_NAMESPACE = uuid.UUID("8f6d1a3e-3c0c-4b6e-9d3e-2f0f5a1c7b11")


def system_id(host: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, host))


def system_uri(host: str) -> str:
    return f"/redfish/v1/Systems/{system_id(host)}"
