"""The pico's making: a stage that was cut short and begun again ends with the same bytes."""

import pytest
import torch

from fluxtui.demo.pretrain import bank, checkpoints, flow, tokenizers, vae
from fluxtui.demo.pretrain.__main__ import load_stage, new_pico


class Cut(Exception):
    """The power went."""


def cut_after(monkeypatch, saves):
    """The process dies right after its `saves`-th checkpoint."""
    left = [saves]
    real = checkpoints.save

    def save(path, state):
        real(path, state)
        left[0] -= 1
        if left[0] == 0:
            raise Cut

    monkeypatch.setattr(checkpoints, "save", save)


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_vae_stage_cut_short_ends_with_the_bytes_of_one_that_was_not(tmp_path, monkeypatch):
    monkeypatch.setattr(vae, "KEEP_EVERY", 2)
    plan = vae.VaePlan(steps=4, batch=2, pictures=8)
    whole = vae.train(tmp_path / "whole.pt", plan).state_dict()
    with monkeypatch.context() as patch:
        cut_after(patch, 1)
        with pytest.raises(Cut):
            vae.train(tmp_path / "cut.pt", plan)
    assert checkpoints.load(tmp_path / "cut.pt")["step"] == 2
    assert same(vae.train(tmp_path / "cut.pt", plan).state_dict(), whole)


def test_a_flow_stage_cut_short_ends_with_the_bytes_of_one_that_was_not(tmp_path, monkeypatch):
    monkeypatch.setattr(flow, "KEEP_EVERY", 2)
    torch.manual_seed(0)
    t5, clip = tokenizers.new_t5_tokenizer(), tokenizers.new_clip_tokenizer()
    world = bank.new_bank(vae.new_vae(), t5, clip, 8, seed=5)
    empty = bank.token_ids(t5, [""]), bank.token_ids(clip, [""])
    plan = flow.FlowPlan(steps=4, batch=2)

    def pretrain(name):
        return flow.pretrain(new_pico(), world, empty, plan, tmp_path / name, lambda *_: None).state_dict()

    whole = pretrain("whole.pt")
    with monkeypatch.context() as patch:
        cut_after(patch, 1)
        with pytest.raises(Cut):
            pretrain("cut.pt")
    assert same(pretrain("cut.pt"), whole)


def test_a_stage_is_not_continued_with_another_plan_nor_used_before_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(vae, "KEEP_EVERY", 1)
    cut_after(monkeypatch, 1)
    with pytest.raises(Cut):
        vae.train(tmp_path / "vae.pt", vae.VaePlan(steps=2, batch=1, pictures=4))
    with pytest.raises(SystemExit, match="give the same"):
        vae.train(tmp_path / "vae.pt", vae.VaePlan(steps=3, batch=1, pictures=4))
    with pytest.raises(SystemExit, match="not at its end"):
        load_stage(tmp_path, "vae")


def test_the_world_of_the_vae_is_the_same_for_a_seed():
    assert torch.equal(vae.wide_pictures(6, 1), vae.wide_pictures(6, 1))
    assert not torch.equal(vae.wide_pictures(6, 1), vae.wide_pictures(6, 2))
