"""Snapshots on a shared URL: what one host has saved, another goes on from after a kill."""

import asyncio
import shutil
from pathlib import Path

import orjson

from tests.cli.forking import run_forked
from tests.kafka.killing import Victim, ticks_in

SEED = 23


async def test_another_host_goes_on_from_the_shared_snapshots(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    topic, symbols, end_ns = await ticks_in(kafka_bootstrap, SEED, n_symbols=6, seconds=200.0)
    shared = tmp_path / "shared"
    extra = f"""
            [snapshots]
            replay_cost = "100ms"
            url = "{shared.as_uri()}"
            """
    quiet = Victim(kafka_bootstrap, tmp_path / "quiet", [topic], symbols, end_ns=end_ns)
    await quiet.prepare()
    expected = await quiet.finish()
    first = Victim(
        kafka_bootstrap, tmp_path / "first", [topic], symbols, end_ns=end_ns, max_records=25
    )
    await first.prepare()
    text = first.config_file.read_text()
    own = text[text.index("[snapshots]") : text.index("[http]")]
    first.config_file.write_text(text.replace(own, extra))
    # the third snapshot is saved: the journal before the oldest is trimmed by then, or soon
    assert await asyncio.to_thread(first.until_killed, "snapshot_saved:4")
    journal = f"{first.prefix}.journal"
    kept = sorted(path.name for path in (shared / journal / "u").iterdir())
    assert 1 <= len(kept) <= 4
    second = Victim(
        kafka_bootstrap,
        tmp_path / "second",
        [topic],
        symbols,
        prefix=first.prefix,
        end_ns=end_ns,
        max_records=25,
    )
    second.folder.mkdir()
    shutil.copy(first.config_file, second.config_file)
    found = await second.finish(expected)
    assert found == expected
    assert second.recoveries[0].snapshot >= 0, "it began with the whole journal"
    assert not [*(second.folder / "snapshots").rglob("*.snap")]
    assert not [*(first.folder / "snapshots").rglob("*.snap")]
    done = run_forked("snapshot", "list", "--config", second.config_file, "--json")
    rows = orjson.loads(done.out)
    assert [row["valid"] for row in rows] == [True] * 3
    assert rows[0]["file"].startswith(f"file://{shared}/{journal}/u/")
    done = run_forked("snapshot", "verify", "--config", second.config_file)
    assert (done.code, done.err) == (0, "")
    done = run_forked("verify", "--config", second.config_file)
    assert (done.code, done.err) == (0, ""), done.out
