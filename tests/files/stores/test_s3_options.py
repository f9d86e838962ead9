import pytest

from raydistill.files.stores.s3_options import s3_place, split_options


@pytest.mark.parametrize("path", ["shop/dt=2024-01-01/part-0.csv", "shop/a=1/b=2", "shop/part-?"])
def test_a_key_may_have_an_equals_sign(path: str) -> None:
    assert s3_place(f"s3://{path}")[1] == path
    assert split_options(f"s3://{path}?region=eu-west-1") == (f"s3://{path}", "region=eu-west-1")
    assert s3_place(f"s3://{path}?region=eu-west-1")[1] == path
