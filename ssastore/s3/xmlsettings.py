"""The XML of settings that S3 gives back. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ssastore.core.lifecycle import Rule
from ssastore.s3.xmltext import document, element, iso8601


def cors(rules: Sequence[Mapping[str, Any]]) -> bytes:
    """The answer of GetBucketCors; rules as in ``cors.Rule``."""

    def listed(name: str, values: Sequence[str]) -> str:
        return "".join(element(name, value) for value in values)

    return document(
        "CORSConfiguration",
        *[
            f"<CORSRule>{element('ID', rule['id'])}{listed('AllowedHeader', rule['headers'])}"
            f"{listed('AllowedMethod', rule['methods'])}{listed('AllowedOrigin', rule['origins'])}"
            f"{listed('ExposeHeader', rule['exposed'])}"
            f"{element('MaxAgeSeconds', rule['max_age_s'])}</CORSRule>"
            for rule in rules
        ],
    )


def encryption(algorithm: str) -> bytes:
    """The answer of GetBucketEncryption."""
    default = element("SSEAlgorithm", algorithm)
    rule = f"<ApplyServerSideEncryptionByDefault>{default}</ApplyServerSideEncryptionByDefault>"
    return document(
        "ServerSideEncryptionConfiguration",
        f"<Rule>{rule}{element('BucketKeyEnabled', False)}</Rule>",
    )


def request_payment() -> bytes:
    """The answer of GetBucketRequestPayment: who owns the bucket pays."""
    return document("RequestPaymentConfiguration", element("Payer", "BucketOwner"))


def accelerate() -> bytes:
    """The answer of GetBucketAccelerateConfiguration where nothing was set."""
    return document("AccelerateConfiguration")


def logging_status() -> bytes:
    """The answer of GetBucketLogging where nothing was set."""
    return document("BucketLoggingStatus")


def notifications() -> bytes:
    """The answer of GetBucketNotificationConfiguration where nothing was set."""
    return document("NotificationConfiguration")


def tagging(tags: Mapping[str, str]) -> bytes:
    """The answer of GetObjectTagging and GetBucketTagging."""
    listed = "".join(
        f"<Tag>{element('Key', key)}{element('Value', value)}</Tag>" for key, value in tags.items()
    )
    return document("Tagging", f"<TagSet>{listed}</TagSet>")


def versioning(status: str) -> bytes:
    """The answer of GetBucketVersioning; empty for a bucket that never made versions."""
    return document("VersioningConfiguration", element("Status", status or None))


def lock_configuration(rule: Mapping[str, str | int] | None) -> bytes:
    """The answer of GetObjectLockConfiguration."""
    content = ""
    if rule:
        period = "".join(element(name.title(), rule[name]) for name in ("days", "years") if name in rule)
        default = f"<DefaultRetention>{element('Mode', rule['mode'])}{period}</DefaultRetention>"
        content = f"<Rule>{default}</Rule>"
    return document("ObjectLockConfiguration", element("ObjectLockEnabled", "Enabled"), content)


def retention(mode: str, until: str) -> bytes:
    """The answer of GetObjectRetention."""
    return document("Retention", element("Mode", mode), element("RetainUntilDate", until))


def legal_hold(status: str) -> bytes:
    """The answer of GetObjectLegalHold."""
    return document("LegalHold", element("Status", status))


def lifecycle(rules: Iterable[Rule]) -> bytes:
    """The answer of GetBucketLifecycleConfiguration."""
    return document("LifecycleConfiguration", "".join(map(_lifecycle_rule, rules)))


def _lifecycle_rule(rule: Rule) -> str:
    tags = "".join(
        f"<Tag>{element('Key', key)}{element('Value', value)}</Tag>" for key, value in rule.tags.items()
    )
    sizes = element("ObjectSizeGreaterThan", rule.greater) + element("ObjectSizeLessThan", rule.less)
    prefix = element("Prefix", rule.prefix)
    count = len(rule.tags) + (rule.greater is not None) + (rule.less is not None)
    if rule.is_plain:
        chosen = prefix
    elif count + bool(rule.prefix) > 1:
        chosen = f"<Filter><And>{prefix if rule.prefix else ''}{tags}{sizes}</And></Filter>"
    else:
        chosen = f"<Filter>{tags + sizes if count else prefix}</Filter>"
    expiration = element("Days", rule.days)
    if rule.date_ms is not None:
        expiration = element("Date", iso8601(rule.date_ms))
    if rule.lone_markers:
        expiration = element("ExpiredObjectDeleteMarker", True)
    noncurrent = ""
    if rule.noncurrent_days is not None:
        newer = element("NewerNoncurrentVersions", rule.newer or None)
        days = element("NoncurrentDays", rule.noncurrent_days)
        noncurrent = f"<NoncurrentVersionExpiration>{days}{newer}</NoncurrentVersionExpiration>"
    abort = element("DaysAfterInitiation", rule.abort_days)
    return (
        f"<Rule>{element('ID', rule.id)}{chosen}"
        f"{element('Status', 'Enabled' if rule.enabled else 'Disabled')}"
        f"{f'<Expiration>{expiration}</Expiration>' if expiration else ''}{noncurrent}"
        f"{f'<AbortIncompleteMultipartUpload>{abort}</AbortIncompleteMultipartUpload>' if abort else ''}"
        "</Rule>"
    )
