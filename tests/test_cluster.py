from raydistill.cluster import store_bytes

MB = 1 << 20
GB = 1 << 30


def store(shard_rows: int, *, num_cores: int, most_bytes: int = 100 * GB) -> int:
    return store_bytes(
        shard_rows=shard_rows, max_length=64, num_cores=num_cores, most_bytes=most_bytes
    )


def test_the_object_store_holds_two_tokenised_shards_a_core() -> None:
    block_bytes = 1_048_576 * (64 * 3 + 20)
    assert store(1_048_576, num_cores=16) == 2 * 16 * block_bytes
    assert store(65_536, num_cores=4) == 500 * MB  # 2 x 4 x 14 MB are less
    assert store(1_048_576, num_cores=16, most_bytes=2 * GB) == 2 * GB
    assert store(1_048_576, num_cores=16, most_bytes=100 * MB) == 500 * MB
