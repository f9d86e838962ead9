"""Random requests, made of the OpenAPI document: no 5xx, answers as described."""

import hypothesis
import pytest

schemathesis = pytest.importorskip("schemathesis")

NUM_EXAMPLES = 12  # of each route and kind
schemathesis.checks.load_all_checks()
CHECKS = schemathesis.checks.CHECKS.get_by_names(
    [
        *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
        *("response_schema_conformance", "response_headers_conformance"),
    ]
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["positive", "negative"])
def test_any_request_is_answered_as_described(address: str, explains: None, kind: str) -> None:
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    mode = schemathesis.GenerationMode(kind)
    limited = hypothesis.settings(
        max_examples=NUM_EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    num_called = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        if kind == "negative" and operation.method == "get":
            continue  # nothing to get wrong

        @limited
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def ask(case) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
            nonlocal num_called
            case.call_and_validate(checks=CHECKS)
            num_called += 1

        ask()
    assert num_called > 20
