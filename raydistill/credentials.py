"""Credentials in URIs: masked in what is shown, refused in settings."""

from __future__ import annotations

import re

from raydistill.errors import UserError

# In a URI: what stands before the host (a container of abfs:// has no password), and the values of
# options such as `secret_key`, `sig` (a signed URL of Azure) or `X-Amz-Signature`.
_USER = re.compile(
    r"(?<=://)[^/?#@\s]*:[^/?#\s]*@"
    r"|(?<=s3://)[^/?#@\s]+@"
    r"|(?<=s3://)[^/?#@:\s]+:[^?#@\s]*@"  # a bucket has no colon; a secret key may have slashes
)
_SECRET = re.compile(
    r"([?&][\w.-]*(?:secret|password|passwd|token|access_key|accesskey|account_key|credential"
    r"|signature)[\w.-]*=|[?&]sig=)[^&\s'\"]+",
    re.IGNORECASE,
)


def masked(text: str) -> str:
    """A text whose URIs have `***` in place of credentials."""
    return _SECRET.sub(r"\1***", _USER.sub("***@", text))


def check_no_secret(name: str, text: str) -> None:
    """Raise UserError if `text` has credentials in a URI: it would be in logs and in run.toml."""
    hidden = masked(text)
    if hidden != text:
        raise UserError(
            f"{name}: credentials in a URI ({hidden}) would be in logs and in run.toml; leave them "
            "out, and give them as AWS tools take them (AWS_* variables, a profile, a role)"
        )
