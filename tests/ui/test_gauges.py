"""The machine's panel: every figure or why it is missing, at every size, with one GPU and with eight."""

from __future__ import annotations

import pytest

from fluxtui.gpu import Gpus
from fluxtui.gpu.readings import Gpu
from fluxtui.screens.drawing.glyphs import glyphs_of
from fluxtui.screens.drawing.terminal_kind import Tier
from fluxtui.screens.panels.gauge_lines import Painting, gpu_lines, host_lines, in_one_line, numbers
from fluxtui.screens.panels.session_row import gpu_words
from fluxtui.screens.watching.watch import GaugesSeen
from tests.ui.conftest import GAUGES, opened, seen, text_of
from tests.ui.fabricate import Fabricated

GIB = 1 << 30
PAINTING = Painting(glyphs_of(Tier.EMOJI), {71: "ring-lora", 72: "ring-lora"}, {})


def gpu(index: int = 0, **more: object) -> Gpu:
    figures: dict[str, object] = {
        "index": index,
        "uuid": f"GPU-{index}",
        "name": "NVIDIA H100 80GB HBM3",
        "memory_total": 80 * GIB,
        "memory_used": 8 * GIB,
        "utilisation": 97.0,
        "power_watts": 350.0,
        "power_limit_watts": 700.0,
        "temperature_celsius": 65.0,
        "slowed_by": (),
    }
    return Gpu(**(figures | more))  # type: ignore[arg-type]


def told(*gpus: Gpu, width: int = 48, room: int = 30, why: str = "") -> str:
    return "\n".join(line.text for line in gpu_lines(Gpus(gpus, why, 1.0), width, room, PAINTING))


def test_one_gpu_tells_everything_in_a_panel() -> None:
    text = told(gpu(slowed_by=("power limit", "heat"), processes={71: 14 * GIB, 72: 2 * GIB, 99: GIB}))
    for words in ("97%", "8.0G/80.0G", "350/700 W", "65 °C", "slowed: power limit, heat", "ring-lora 16.0G", "others 1.0G"):
        assert words in text, (words, text)


@pytest.mark.parametrize(
    ("missing", "figure"),
    [
        ("utilisation", "busy n/a: no permission to use the NVIDIA driver"),
        ("memory", "memory n/a: no permission"),
        ("power_watts", "power n/a: no permission"),
        ("temperature_celsius", "temperature n/a: no permission"),
        ("slowed_by", "throttling n/a: no permission"),
        ("processes", "memory by session n/a: no permission"),
    ],
)
def test_a_figure_that_is_missing_says_why(missing: str, figure: str) -> None:
    why = "no permission to use the NVIDIA driver; look at the owner of /dev/nvidia*"
    changes = {missing: None} if missing not in {"memory", "processes"} else {}
    changes |= {"memory_total": 0} if missing == "memory" else {}
    for room in (30, 1):
        text = told(gpu(missing={missing: why}, **changes), room=room).replace("\n ", "")
        assert figure in text, text
        if missing not in {"slowed_by", "processes"}:
            assert text.count("n/a") == 2, text


def test_the_same_reason_of_many_gpus_is_said_once() -> None:
    text = told(*(gpu(at, power_watts=None, missing={"power_watts": "too old"}) for at in (0, 1, 2, 5)))
    assert text.count("too old") == 1
    assert "0-2,5 power n/a: too old" in text


def test_a_lost_gpu_is_named_below_the_others() -> None:
    assert "GPU 1: it fell off the bus" in told(gpu(0), gpu(2), why="GPU 1: it fell off the bus; reboot the machine")


@pytest.mark.parametrize("room", [50, 20, 10])
def test_eight_gpus_take_as_much_as_there_is(room: int) -> None:
    lines = told(*(gpu(at) for at in range(8)), room=room).splitlines()
    assert len(lines) <= room
    assert all(any(f"{at}" in line for line in lines) for at in range(8))
    assert "\n".join(lines).count("350/700 W") == 8


@pytest.mark.parametrize("count", [0, 1, 2, 8, 16])
@pytest.mark.parametrize("width", [61, 80, 120, 159])
def test_the_one_line_always_tells_the_gpus_and_the_host(count: int, width: int) -> None:
    line = in_one_line(GAUGES, Gpus(tuple(gpu(at) for at in range(count)), "", 1.0), width, PAINTING)
    assert line.width <= width
    assert "CPU  37%" in line.text, line.text
    assert ("97" in line.text) == (count > 0), line.text
    if width >= 80:
        assert "free" in line.text or line.text.endswith("…"), line.text
    if count == 1 and width >= 120:
        assert "350/700 W 65 °C" in line.text


def test_throttling_is_seen_in_the_one_line() -> None:
    slowed = gpu(slowed_by=("heat",))
    assert "slowed: heat" in in_one_line(GAUGES, Gpus((slowed,), "", 1.0), 120, PAINTING).text
    many = Gpus((slowed, *(gpu(at) for at in range(1, 8))), "", 1.0)
    assert "1 slowed" in in_one_line(GAUGES, many, 80, PAINTING).text


def test_the_network_is_told() -> None:
    import msgspec

    host = msgspec.structs.replace(GAUGES, network_read=1.5 * 2**20, network_written=2048.0)
    assert "1.5M/s in, 2.0K/s out" in host_lines(host, 48, PAINTING)[-1].text
    assert "net 1.5M/s in" in in_one_line(host, None, 120, PAINTING).text
    why = "no NVIDIA driver here (libnvidia-ml.so.1 is not installed); install it, or start the container with its GPUs"
    for width in (80, 83, 110):  # whole clauses: not "GPU n/a: t…", not "driver here (…"
        assert in_one_line(host, Gpus((), why, 1.0), width, PAINTING).text.endswith("GPU n/a: no NVIDIA driver here…")
    assert in_one_line(host, Gpus((), why, 1.0), 61, PAINTING).text.endswith("GPU n/a…")
    installed = "no NVIDIA driver here (libnvidia-ml.so.1 is not installed)…"
    assert in_one_line(host, Gpus((), why, 1.0), 125, PAINTING).text.endswith(installed)


def test_gpus_are_named_by_their_numbers(states: Fabricated) -> None:
    from types import SimpleNamespace as Session

    gpus = {f"GPU-{at}": at for at in range(8)}
    for uuids, shown in (
        ((), "cpu"),
        (("GPU-3",), "3"),
        (("GPU-0", "GPU-1", "GPU-2"), "0-2"),
        (("GPU-elsewhere",), "1 gpu"),
        (tuple(gpus)[::2], "4 gpus"),
    ):
        assert gpu_words(Session(attempt=1, gpus=uuids), gpus) == shown  # type: ignore[arg-type]
    assert numbers([7, 0, 1, 2, 5]) == "0-2,5,7"


@pytest.mark.parametrize("size", [(200, 60), (80, 24)])
async def test_eight_gpus_with_the_focus_are_scrolled_and_the_host_stays(states: Fabricated, size: tuple[int, int]) -> None:
    async with opened(states.home, size) as (app, pilot):
        await seen(pilot, lambda: app.board.gauges.host is not None, "no gauges")
        gpus = Gpus(tuple(gpu(at, slowed_by=("heat",) if at == 7 else ()) for at in range(8)), "", 1.0)
        app.post_message(GaugesSeen(GAUGES, gpus))
        await seen(pilot, lambda: app.board.gauges.gpus is gpus, "not taken")
        assert "97" in text_of(app)
        assert "37%" in text_of(app)
        height = app.board.gauges.size.height
        await pilot.press("shift+tab")
        assert app.board.gauges.has_focus
        await pilot.pause()
        if size[0] == 80:
            assert app.board.gauges.size.height > height, "the line does not become a panel"
            assert "1-8 of 8" in text_of(app) or "0  97%" in text_of(app), text_of(app)
        await pilot.press("G")
        await pilot.pause()
        assert "slowed: heat" in text_of(app)
        assert "37%" in text_of(app)
        assert "61.0G free" in text_of(app)
        await pilot.press("plus", "plus")
        await pilot.pause()
        assert app.board.gauges.size.height > size[1] // 2
        assert text_of(app).count("350/700 W") == 8
        await pilot.press("minus", "minus", "tab")
        await pilot.pause()
        assert app.board.gauges.size.height == (height if size[0] == 80 else app.board.gauges.size.height)


def test_each_gpu_counts_before_the_network_where_room_is_short() -> None:
    import msgspec

    host = msgspec.structs.replace(GAUGES, network_read=1.5 * 2**20, network_written=2048.0)
    gpus = Gpus(tuple(gpu(at, utilisation=float(90 + at)) for at in range(8)), "", 1.0)
    line = in_one_line(host, gpus, 80, PAINTING).text
    assert "90 91 92 93 94 95 96 97%" in line, line
    assert "mem 12.0G/24.0G" in line
    assert line.endswith("…"), line
    assert "disk" not in line, "half a figure is another figure"


def test_a_wide_panel_has_bars_also_where_a_gpu_has_one_line() -> None:
    gpus = tuple(gpu(at, utilisation=50.0, memory_used=(8 + at) * 8 * GIB // 8, slowed_by=("heat",)) for at in range(8))
    lines = told(*gpus, width=116, room=8).splitlines()
    assert len(lines) == 8
    assert all("━" * 11 in line and "slowed: heat" in line for line in lines), lines
    assert len({line.index("/700 W") for line in lines}) == 1, "the columns do not stand below each other"
    assert "━" not in told(*gpus, width=76, room=8)
