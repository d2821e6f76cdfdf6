"""Settings of buckets through boto3, CORS as a browser sees it, and what nobody has set."""

from __future__ import annotations

import http.client
from typing import Any

import pytest

from tests.s3.gateways import Gateway
from tests.s3.test_boto3 import error_of, fill


def ask(gateway: Gateway, method: str, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """What a browser does: no credentials, its own headers. Status, headers in lower case, body."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): headers[name] for name in headers})
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


RULES: list[dict[str, Any]] = [
    {
        "ID": "pages",
        "AllowedMethods": ["GET", "PUT"],
        "AllowedOrigins": ["http://*.example.net"],
        "AllowedHeaders": ["x-amz-*"],
        "ExposeHeaders": ["ETag"],
        "MaxAgeSeconds": 30,
    },
    {"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]},
]


@pytest.fixture
def crossed(s3: Any, bucket: str) -> str:
    """A bucket with CORS rules."""
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": RULES})
    return bucket


class TestCors:
    def test_rules_are_set_read_and_dropped(self, s3: Any, bucket: str) -> None:
        assert error_of(s3.get_bucket_cors, Bucket=bucket) == ("NoSuchCORSConfiguration", 404)
        s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": RULES})
        assert s3.get_bucket_cors(Bucket=bucket)["CORSRules"] == RULES
        wrong = {"CORSRules": [{"AllowedMethods": ["PATCH"], "AllowedOrigins": ["*"]}]}
        refused = error_of(s3.put_bucket_cors, Bucket=bucket, CORSConfiguration=wrong)
        assert refused == ("InvalidRequest", 400)
        assert s3.get_bucket_cors(Bucket=bucket)["CORSRules"] == RULES
        assert s3.delete_bucket_cors(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 204
        assert error_of(s3.get_bucket_cors, Bucket=bucket) == ("NoSuchCORSConfiguration", 404)
        assert error_of(s3.get_bucket_cors, Bucket="not-there") == ("NoSuchBucket", 404)

    def test_preflight_needs_no_credentials(self, gateway: Gateway, crossed: str) -> None:
        status, headers, body = ask(
            gateway,
            "OPTIONS",
            f"/{crossed}/any/key?X-Amz-Signature=whatever",
            Origin="http://a.example.net",
            Access_Control_Request_Method="PUT",
            Access_Control_Request_Headers="X-Amz-Date",
        )
        assert (status, body) == (200, b"")
        assert headers["access-control-allow-origin"] == "http://a.example.net"
        assert headers["access-control-allow-methods"] == "GET, PUT"
        assert headers["access-control-allow-headers"] == "x-amz-date"
        assert headers["access-control-max-age"] == "30"

    @pytest.mark.parametrize(
        ("path", "headers", "status"),
        [
            ("/{}", {}, 400),
            ("/{}", {"Origin": "http://a.example.net"}, 400),
            ("/{}", {"Origin": "http://b", "Access_Control_Request_Method": "PUT"}, 403),
            ("/not-there", {"Origin": "http://b", "Access_Control_Request_Method": "GET"}, 404),
            ("/", {"Origin": "http://b", "Access_Control_Request_Method": "GET"}, 403),
        ],
    )
    def test_preflight_that_is_refused(
        self, gateway: Gateway, crossed: str, path: str, headers: dict[str, str], status: int
    ) -> None:
        found, told, _ = ask(gateway, "OPTIONS", path.format(crossed), **headers)
        assert found == status and "access-control-allow-origin" not in told

    def test_refused_preflight_says_nothing_of_rules_that_fit_less(
        self, gateway: Gateway, crossed: str
    ) -> None:
        asked = {"Origin": "http://b", "Access_Control_Request_Method": "GET"}
        more = {"Access_Control_Request_Headers": "x-amz-date"}
        assert ask(gateway, "OPTIONS", f"/{crossed}", **asked)[0] == 200
        status, told, _ = ask(gateway, "OPTIONS", f"/{crossed}", **asked, **more)
        assert status == 403 and "access-control-allow-origin" not in told

    def test_a_bucket_without_rules_allows_nothing(self, gateway: Gateway, bucket: str) -> None:
        asked = {"Origin": "http://a", "Access_Control_Request_Method": "GET"}
        status, _, body = ask(gateway, "OPTIONS", f"/{bucket}/k", **asked)
        assert status == 403 and b"CORS is not enabled" in body

    def test_answers_tell_a_page_good_or_bad(self, gateway: Gateway, s3: Any, crossed: str) -> None:
        fill(s3, crossed, "k")
        url = s3.generate_presigned_url("get_object", {"Bucket": crossed, "Key": "k"})
        path = url.removeprefix(gateway.url)
        status, headers, body = ask(gateway, "GET", path, Origin="http://a.example.net")
        assert (status, body) == (200, b"k")
        assert headers["access-control-allow-origin"] == "http://a.example.net"
        assert headers["access-control-expose-headers"] == "ETag"
        status, headers, _ = ask(gateway, "GET", f"/{crossed}/k", Origin="http://elsewhere")
        assert status == 403 and headers["access-control-allow-origin"] == "*"
        status, headers, _ = ask(gateway, "DELETE", f"/{crossed}/k", Origin="http://elsewhere")
        assert status == 403 and "access-control-allow-origin" not in headers
        status, headers, _ = ask(gateway, "GET", path)
        assert status == 200 and "access-control-allow-origin" not in headers


class TestWhatNobodySet:
    @pytest.mark.parametrize(
        ("call", "expected"),
        [
            ("get_bucket_request_payment", {"Payer": "BucketOwner"}),
            ("get_bucket_accelerate_configuration", {}),
            ("get_bucket_logging", {}),
            ("get_bucket_notification_configuration", {}),
            ("get_bucket_website", "NoSuchWebsiteConfiguration"),
            ("get_bucket_replication", "ReplicationConfigurationNotFoundError"),
        ],
    )
    def test_it_is_answered_as_unset(self, s3: Any, bucket: str, call: str, expected: Any) -> None:
        if isinstance(expected, str):
            assert error_of(getattr(s3, call), Bucket=bucket) == (expected, 404)
        else:
            answer = getattr(s3, call)(Bucket=bucket)
            assert {name: answer[name] for name in answer if name != "ResponseMetadata"} == expected
        assert error_of(getattr(s3, call), Bucket="not-there") == ("NoSuchBucket", 404)

    def test_setting_it_says_what_is_lacking(self, s3: Any, bucket: str) -> None:
        events = {"TopicConfigurations": [{"TopicArn": "arn:aws:sns:x", "Events": ["s3:ObjectCreated:*"]}]}
        for call, arguments in (
            (s3.put_bucket_request_payment, {"RequestPaymentConfiguration": {"Payer": "Requester"}}),
            (s3.put_bucket_accelerate_configuration, {"AccelerateConfiguration": {"Status": "Enabled"}}),
            (s3.put_bucket_notification_configuration, {"NotificationConfiguration": events}),
            (
                s3.put_bucket_logging,
                {"BucketLoggingStatus": {"LoggingEnabled": {"TargetBucket": bucket, "TargetPrefix": "l"}}},
            ),
            (s3.put_bucket_website, {"WebsiteConfiguration": {"IndexDocument": {"Suffix": "i"}}}),
        ):
            assert error_of(call, Bucket=bucket, **arguments) == ("NotImplemented", 501), call

    def test_taking_it_back_is_done(self, s3: Any, bucket: str, nobody: Any) -> None:
        for call, arguments, status in (
            ("put_bucket_request_payment", {"RequestPaymentConfiguration": {"Payer": "BucketOwner"}}, 200),
            ("put_bucket_notification_configuration", {"NotificationConfiguration": {}}, 200),
            ("put_bucket_logging", {"BucketLoggingStatus": {}}, 200),
            ("delete_bucket_website", {}, 204),
            ("delete_bucket_replication", {}, 204),
        ):
            done = getattr(s3, call)(Bucket=bucket, **arguments)
            assert done["ResponseMetadata"]["HTTPStatusCode"] == status
            assert error_of(getattr(s3, call), Bucket="not-there", **arguments) == ("NoSuchBucket", 404)
            assert error_of(getattr(nobody, call), Bucket=bucket, **arguments) == ("AccessDenied", 403)
        s3.head_bucket(Bucket=bucket)
