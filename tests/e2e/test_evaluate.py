"""What is measured offline is what rankers get: the same figures through running lanes."""

import json

import pytest

from tests.deployment import Deploy
from tests.evaluated import evaluation_files

pytestmark = pytest.mark.timeout(240)

FIGURES = ("n_items", "n_users", "recall@5", "ndcg@5", "hr@5", "percentile")


def test_the_pipeline_earns_what_was_measured_offline(deploy: Deploy, tmp_path) -> None:
    files = evaluation_files(
        tmp_path, factors=("genre", "people", "theme", "mood", "acclaim", "audience")
    )
    deployment = deploy(
        environment={
            "FRESHET_KNOWLEDGE__WRITER": "recorded",
            "FRESHET_KNOWLEDGE__MODEL": "recorded-answers",
            "FRESHET_KNOWLEDGE__RECORDED_FILE": str(files["knowledge"]),
            "FRESHET_ENCODE__CACHE_DIR": str(tmp_path / "cache"),
        }
    )
    asked = (
        *("evaluate", "cold-start", "--space", "parts-pca", "--k", "5", "--json"),
        *("--catalog", str(files["catalog"]), "--knowledge", str(files["knowledge"])),
        *("--train", str(files["train"]), "--test", str(files["test"]), "--history", "lane"),
    )
    deployment.start_all("items", "knowledge", "encode", "behaviour")

    offline = deployment.freshet(*asked)
    live = deployment.freshet(*asked, "--through-pipeline", "--wait", "100")
    again = deployment.freshet(*asked, "--through-pipeline", "--wait", "100")

    assert (offline.returncode, live.returncode) == (0, 0), offline.stderr + live.stderr
    before, after = json.loads(offline.stdout), json.loads(live.stdout)
    assert after["stages"] == {"individual": 38}
    assert after["items_without_vector"] == 0
    assert [after[name] for name in FIGURES] == pytest.approx(
        [before[name] for name in FIGURES], abs=1e-3
    )
    # The same events again change nothing.
    assert [json.loads(again.stdout)[name] for name in FIGURES] == [after[name] for name in FIGURES]


def test_a_deployment_of_somebody_else_is_not_touched(deploy: Deploy, tmp_path) -> None:
    files = evaluation_files(tmp_path, factors=("genre",))
    deployment = deploy()
    deployment.start_all("items", "encode")
    own = tmp_path / "own.jsonl"
    own.write_text('{"id": "theirs", "v": 1, "title": "Heat"}\n')
    sent = deployment.freshet(
        "produce", str(own), "--id-field", "id", "--version-field", "v", "--json"
    )
    deployment.wait_settled()

    ran = deployment.freshet(
        *("evaluate", "cold-start", "--space", "parts-pca", "--through-pipeline"),
        *("--catalog", str(files["catalog"]), "--train", str(files["train"])),
        *("--test", str(files["test"]), "--k", "5"),
    )
    other = deployment.freshet(
        *("evaluate", "cold-start", "--space", "minilm-parts", "--through-pipeline"),
        *("--catalog", str(files["catalog"]), "--train", str(files["train"])),
        *("--test", str(files["test"]), "--k", "5"),
    )

    assert sent.returncode == 0
    assert ran.returncode == 2
    assert "holds other items (item:theirs" in ran.stderr
    assert other.returncode == 2
    assert "parts-pca is active for items, not minilm-parts" in other.stderr
