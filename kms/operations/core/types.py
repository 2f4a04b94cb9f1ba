"""Types of members that requests to several operations have."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from kms.crypto.registry import KEY_TYPES

Cursor = Annotated[str, msgspec.Meta(max_length=512)]
Limit = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Region = Annotated[str, msgspec.Meta(max_length=32, pattern=r"^(([a-z]+-){2,3}[0-9]+)?\Z")]
KeyTypeName = Annotated[str, msgspec.Meta(extra_json_schema={"enum": list(KEY_TYPES)})]
