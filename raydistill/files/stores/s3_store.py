"""S3 as an Arrow file system: Arrow's own client for listings and parts, botocore for objects."""

from __future__ import annotations

from collections.abc import Sequence
from errno import EISDIR
from typing import Any

from pyarrow import fs

from raydistill.files.stores.causes import StoreFault
from raydistill.files.stores.s3_client import S3Client, named_faults, s3_client
from raydistill.files.stores.s3_options import S3Options

MOST_PUT_BYTES = 5 << 30  # of one PUT; a larger object takes a multipart upload
_CONFLICT = 412  # a condition of the request does not hold


class S3Store(fs.FileSystemHandler):  # type: ignore[misc]
    """The buckets that some options lead to; paths are `bucket/key`. Pickled without secrets."""

    has_conditions = True  # since 2024 on AWS; a store that ignores them is found by the caller

    def __init__(self, options: S3Options) -> None:
        """Each process opens its own clients."""
        self.options = options

    def __eq__(self, other: object) -> bool:
        """Whether both lead to the same buckets."""
        return isinstance(other, S3Store) and self.options == other.options

    def __hash__(self) -> int:
        """Of the options."""
        return hash(self.options)

    # --- whole objects

    def get(self, path: str) -> bytes:
        """The object at `path`: one GET."""
        return self._get(path, {})

    def get_span(self, path: str, start: int, stop: int) -> bytes:
        """The bytes start..stop, without stop, of an object: one GET."""
        if stop <= start:
            return b""
        return self._get(path, {"Range": f"bytes={start}-{stop - 1}"})

    def _get(self, path: str, extra: dict[str, str]) -> bytes:
        bucket, _, key = path.partition("/")
        if not key:
            raise IsADirectoryError(EISDIR, "a bucket, not an object", path)
        client = self._client(bucket)
        with named_faults("GetObject", path):
            return bytes(client.requests.get_object(Bucket=bucket, Key=key, **extra)["Body"].read())

    def put(self, path: str, data: bytes) -> None:
        """Write an object: one PUT up to 5 GB, so that a killed job leaves nothing behind."""
        if len(data) > MOST_PUT_BYTES:
            with self._arrow(path).open_output_stream(path, compression=None) as stream:
                stream.write(data)
            return
        self._put(path, data, {})

    def create(self, path: str, data: bytes) -> bool:
        """Write an object that does not exist; False if it does."""
        return self._put(path, data, {"IfNoneMatch": "*"})

    def replace(self, path: str, data: bytes, *, tag: str) -> bool:
        """Write over the object whose state is `tag`; False if it has another state."""
        return self._put(path, data, {"IfMatch": tag})

    def _put(self, path: str, data: bytes, condition: dict[str, str]) -> bool:
        bucket, _, key = path.partition("/")
        client = self._client(bucket)
        try:
            with named_faults("PutObject", path):
                client.requests.put_object(Bucket=bucket, Key=key, Body=data, **condition)
        except StoreFault as fault:
            if condition and fault.status == _CONFLICT:
                return False
            raise
        except FileNotFoundError:  # a condition on an object that is gone
            if condition:
                return False
            raise
        return True

    def tag(self, path: str) -> str | None:
        """The tag of the object's state (ETag); None if it does not exist."""
        bucket, _, key = path.partition("/")
        client = self._client(bucket)
        try:
            with named_faults("HeadObject", path):
                return str(client.requests.head_object(Bucket=bucket, Key=key)["ETag"])
        except FileNotFoundError:
            return None

    def _client(self, bucket: str) -> S3Client:
        client = s3_client(self.options)
        client.open_bucket(bucket)
        return client

    def _arrow(self, path: str) -> fs.S3FileSystem:
        bucket = path.partition("/")[0]
        return self._client(bucket).arrow(bucket)

    # --- what Arrow asks of a file system

    def get_type_name(self) -> str:
        """The name of the kind."""
        return "raydistill+s3"

    def normalize_path(self, path: str) -> str:
        """The path as it is."""
        return path

    def get_file_info(self, paths: Sequence[str]) -> list[fs.FileInfo]:
        """One request for each path, two for a folder."""
        return [self._arrow(path).get_file_info(path) for path in paths]

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        """One request for 1,000 objects."""
        found: list[fs.FileInfo] = self._arrow(selector.base_dir).get_file_info(selector)
        return found

    def open_input_file(self, path: str) -> Any:  # noqa: ANN401 - Arrow's types
        """Arrow's own file: no Python between it and the store."""
        return self._arrow(path).open_input_file(path)

    def open_input_stream(self, path: str) -> Any:  # noqa: ANN401
        """Arrow's own stream."""
        return self._arrow(path).open_input_stream(path, compression=None)

    def open_output_stream(self, path: str, metadata: Any) -> Any:  # noqa: ANN401
        """Arrow's own stream; the object appears when it is closed."""
        return self._arrow(path).open_output_stream(path, compression=None, metadata=metadata)

    def open_append_stream(self, path: str, metadata: Any) -> Any:  # noqa: ANN401
        """S3 cannot append."""
        raise NotImplementedError("an object cannot be appended to")

    def create_dir(self, path: str, recursive: bool) -> None:
        """S3 has no folders; Arrow makes an empty object that stands for one."""
        self._arrow(path).create_dir(path, recursive=recursive)

    def delete_dir(self, path: str) -> None:
        """Delete all objects below."""
        self._arrow(path).delete_dir(path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        """Delete all objects below, and keep the folder."""
        self._arrow(path).delete_dir_contents(path, missing_dir_ok=missing_dir_ok)

    def delete_root_dir_contents(self) -> None:
        """Never."""
        raise NotImplementedError("buckets are not deleted")

    def delete_file(self, path: str) -> None:
        """Delete one object."""
        self._arrow(path).delete_file(path)

    def move(self, source: str, target: str) -> None:
        """Copy and delete."""
        self._arrow(source).move(source, target)

    def copy_file(self, source: str, target: str) -> None:
        """Copy one object inside the store."""
        self._arrow(source).copy_file(source, target)
