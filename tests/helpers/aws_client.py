"""An unmodified boto3 as a client of the running service, its answers held to botocore's own model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator

from helpers.running import Running

REGION = "us-east-1"


@dataclass
class Kms:
    """A client of one region whose every answer is checked against the model of the operation."""

    client: Any

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self.client, name)
        operation = self.client.meta.method_to_api_mapping[name]
        shape = self.client.meta.service_model.operation_model(operation).output_shape

        def checked(**given: Any) -> Any:
            answer = call(**given)
            metadata = answer.pop("ResponseMetadata")
            assert metadata["RequestId"]
            if shape is None:
                assert answer == {}
            else:
                assert not ParamValidator().validate(answer, shape).has_errors()
            return answer

        return checked

    def refusal(self, name: str, **given: Any) -> tuple[str, str]:
        """The class and the message of the exception that a call raises."""
        with pytest.raises(ClientError) as refused:
            getattr(self.client, name)(**given)
        error = refused.value.response["Error"]
        if hasattr(self.client.exceptions, error["Code"]):
            assert isinstance(refused.value, getattr(self.client.exceptions, error["Code"]))
        return error["Code"], error["Message"]

    def key(self, **given: Any) -> str:
        """The id of a new key."""
        return str(self.create_key(**given)["KeyMetadata"]["KeyId"])


@dataclass
class Account:
    """A client of the service, with its session and its access key."""

    service: Running
    token: str

    def access_key(self, **body: Any) -> dict[str, Any]:
        """A new access key, as it was answered."""
        made = self.service.curl("POST", "/api/v1/access-keys", body, token=self.token)
        assert made.status == 201, made.text
        return dict(made.json)

    def kms(self, region: str = REGION, key: dict[str, Any] | None = None) -> Kms:
        """A boto3 client of one region, with `key` or a new access key."""
        key = key or self.access_key()
        client = boto3.client(
            "kms",
            endpoint_url=self.service.url,
            region_name=region,
            aws_access_key_id=key["access_key_id"],
            aws_secret_access_key=key["secret_access_key"],
            aws_session_token=key.get("session_token"),
            verify=str(self.service.folder / "server.crt"),
            config=Config(retries={"total_max_attempts": 1}, parameter_validation=False),
        )
        return Kms(client)
