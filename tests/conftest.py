"""Small real things that tests share: a tiny BERT, a local Ray, an S3 server, raw files."""

import gc
import logging
import os
import shutil
import signal

os.environ["HF_HUB_OFFLINE"] = "1"  # models come from folders, never from a hub

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raydistill.config.run_config import RunConfig
from raydistill.demo.shop import Shop

# The collector would walk all of torch again and again, while it is imported and at every test's
# end: a fifth of the time of the tests that need no Ray.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What runs in the background of a script (`make test &`) inherits that Ctrl-C is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


# 40 words, so that a tiny BERT has a tiny vocabulary.
WORDS = (
    "sofa couch grey blue table lamp oak desk chair bed red green cover leg 1 2 3 18 v volt drill "
    "saw tap sink pot pan mug cup rug shelf door knob hinge bolt screw nail glue paint brush"
).split()

# What else the made-up shop writes most: without it a tokenizer is refused for its texts.
SHOP_WORDS = (
    "- , 0 5 . 4 6 for inch 8 7 9 screws ft wood pack white replacement by air water door fits w "
    "driver mirror / b wall compatible with bottle dark picture glass stand frame brass silver "
    "impact black of skillet year warranty battery purifier fry snow cu coffee stool watt cleaner "
    "head basket lid metallic iron x and extension tv fridge freezer stainless steel best power "
    "size outdoor yellow deck screw handle home office foot s lights bar deep ladder mini bank "
    "laundry heater kitchen frying count chandelier cheap hoover charger navy full computer chrome "
    "hanging chain bench step orange frames set easy couches thermostat timber portable toilet "
    "self hinges string hose drinking durable upgraded machine ounce l shaped hot compact display "
    "washer flat model blender shower floating bronze maker modern cord refrigerator fan fennwick "
    "skarholt vorlandis nortavik tamberline fjordalen juniva wexmoor veltrona bolderby rusthaven "
    "quarrelock grenwhistle mondrava umbriva galdrix ambervane pellmarsh dextaro quendle corvessa "
    "zorandi onyx kestwold solvanti hollowmere rivenhall pouch case heavy duty gas round small "
    "large king queen cotton glossy matte gold beige walnut bathroom bedroom garden paper storage"
).split()
VOCABULARY = list(dict.fromkeys([*WORDS, *SHOP_WORDS]))


TINY = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 64,
}  # fmt: skip


def make_bert(folder: Path, *, num_labels: int, seed: int = 0) -> Path:
    """A real BERT cross-encoder with random weights: 1 layer, 32 wide, about 200 words."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder.mkdir(parents=True)
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *VOCABULARY]
    (folder / "vocab.txt").write_text("\n".join(vocab))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocab),
        **TINY,
        num_labels=num_labels,
        initializer_range=0.5,  # far apart: a wrong order or a lost word shows in the logit
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def make_mpnet(folder: Path) -> Path:
    """An encoder of another family: other special tokens, no token types, positions from 2."""
    import torch
    from transformers import MPNetConfig, MPNetModel, MPNetTokenizerFast

    folder.mkdir(parents=True)
    vocab = ["<s>", "<pad>", "</s>", "[UNK]", *VOCABULARY, "<mask>"]
    (folder / "vocab.txt").write_text("\n".join(vocab))
    MPNetTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = MPNetConfig(
        vocab_size=len(vocab),
        **TINY,
        initializer_range=0.5,  # with its default, a model this narrow gives all pairs one logit
    )
    MPNetModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def _no_console_left() -> Iterator[None]:
    """The CLI logs to the stderr of its test, which pytest closes."""
    yield
    logger = logging.getLogger("raydistill")
    logger.handlers.clear()
    logger.propagate = True


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bert(tmp_path_factory.mktemp("models") / "tiny", num_labels=1)


@pytest.fixture(scope="session")
def shop() -> Shop:
    return Shop.build(seed=0, num_products=2_000, num_queries=400)


@pytest.fixture(scope="session")
def raw_files(tmp_path_factory: pytest.TempPathFactory, shop: Shop) -> Path:
    """A made-up shop's files: three of pairs, one of judged pairs."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "pairs").mkdir()
    for shard in range(3):
        pairs = shop.transfer_pairs(shard, num_rows=1_000)
        pq.write_table(pairs, folder / "pairs" / f"part-{shard}.parquet")
    pq.write_table(shop.judged_pairs(num_rows=1_200), folder / "judged.parquet")
    return folder


def run_config(run_dir: Path | str, raw: Path, model: Path, **sections: object) -> RunConfig:
    """A small run over `raw_files`, with a ready-made teacher unless told otherwise."""
    content: dict[str, object] = {
        "run_dir": str(run_dir),
        "pairs": {"input": [str(raw / "pairs")], "shard_rows": 512},
        "judged": {"input": [str(raw / "judged.parquet")], "relevant_at": 0.75},
        "teachers": {"tiny": {"model": str(model)}},
        "trees": {"enabled": False},
        "student": {"embedding_dim": 8, "hidden": [16, 8]},
        "ngrams": {"hash_bits": 12, "word_dim": 4},
        "train": {"epochs": 2, "judged_epochs": 2, "batch_rows": 64, "window_rows": 1_024},
        "label": {"max_length": 32, "dtype": "float32"},
        "finetune": {"max_length": 32, "epochs": 1, "batch_rows": 64},
    }
    for name, fields in sections.items():
        merged = {**content.get(name, {}), **fields} if name != "teachers" else fields  # type: ignore[dict-item]
        content[name] = merged
    return RunConfig.model_validate(content)


@pytest.fixture(scope="session")
def local_ray(s3: str) -> Iterator[None]:
    """One Ray for all tests that ask for it; its workers inherit where S3 is."""
    import ray

    import raydistill.cluster.connection  # noqa: F401 - sets Ray's environment before ray starts

    ray.init(
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=300 * 2**20,
        log_to_driver=False,
        logging_level="error",
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def _prepared(local_ray: None, raw_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from raydistill.runs.run_folder import Run
    from raydistill.stages import prepare

    folder = tmp_path_factory.mktemp("prepared") / "run"
    prepare.prepare_stage(Run(run_config(folder, raw_files, Path("no-model"))))
    return folder


@pytest.fixture
def prepared_dir(_prepared: Path, tmp_path: Path) -> Path:
    """A run folder of `raw_files` with prepare behind it; the test's own copy."""
    return Path(shutil.copytree(_prepared, tmp_path / "run"))


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A real S3 server on this machine; gives the URI of an empty bucket."""
    import boto3
    from moto.server import ThreadedMotoServer

    from raydistill.serving.machine_code.compiled import cache_folder

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")),  # copies of models go here
    }
    if (compiled := cache_folder()) is not None:  # but not compiled code: workers share that
        settings["NUMBA_CACHE_DIR"] = str(compiled.parent)
    os.environ.update(settings)
    boto3.client("s3").create_bucket(Bucket="bucket")
    return "s3://bucket"  # its thread ends with the process; stopping it takes half a second
