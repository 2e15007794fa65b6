"""The port's promises, clause by clause, for both twins."""

from __future__ import annotations

import attrs
import pytest
import trio

from clawdforge.domain.ids import AppName
from clawdforge.domain.ports import AuditRow, Store
from clawdforge.errors import AppNameTaken, AppNotFound, SessionClosed, SessionNotFound

from .examples import LAB, SHOP, app, ended, file, session, session_id, turn

# --- apps -----------------------------------------------------------------------------------------


async def test_a_minted_app_is_found_by_its_digest(store: Store) -> None:
    """The digest of a token leads to the app, with its networks; another digest to nobody."""
    lab = app(ip_cidrs=("10.0.0.0/8", "::1/128"))
    await store.add_app(lab, "digest")
    assert await store.find_app("digest") == lab
    assert await store.find_app("other") is None


async def test_a_name_is_minted_once(store: Store) -> None:
    """A second token for a name, or a second name for a token, is refused and changes nothing."""
    await store.add_app(app(), "digest")
    with pytest.raises(AppNameTaken) as taken:
        await store.add_app(app(), "another digest")
    assert taken.value.name == "lab"
    with pytest.raises(AppNameTaken):
        await store.add_app(app("shop"), "digest")
    assert await store.list_apps() == [app()]


async def test_of_two_reasons_not_to_mint_the_name_comes_first(store: Store) -> None:
    """With the name taken and the token in use elsewhere, the error is about the name."""
    for name, digest in (("shop", "one"), ("lab", "two")):
        await store.add_app(app(name), digest)
    for name, digest in (("lab", "one"), ("shop", "two")):
        with pytest.raises(AppNameTaken) as taken:
            await store.add_app(app(name), digest)
        assert taken.value.name == name


async def test_minting_may_be_repeated(store: Store) -> None:
    """The same token under the same name again is a no-op: a cancelled caller may try again."""
    await store.add_app(app(), "digest")
    await store.add_app(app(at=900), "digest")
    assert await store.list_apps() == [app()]


async def test_a_revoked_token_is_nobodys(store: Store) -> None:
    """After revocation the token leads nowhere and the name is gone from the list."""
    await store.add_app(app(), "digest")
    await store.revoke_app(LAB)
    assert await store.find_app("digest") is None
    assert await store.list_apps() == []
    with pytest.raises(AppNotFound):
        await store.revoke_app(LAB)


async def test_revoking_an_unknown_name_says_so(store: Store) -> None:
    """A name that was never minted is AppNotFound, and the error knows the name."""
    with pytest.raises(AppNotFound) as missing:
        await store.revoke_app(AppName("nobody"))
    assert missing.value.name == "nobody"


async def test_a_revoked_name_may_be_minted_again(store: Store) -> None:
    """Rotation: a new token, its own networks, and the sessions are still there."""
    await store.add_app(app(), "old")
    await store.add_session(session())
    await store.revoke_app(LAB)
    rotated = app(at=600, ip_cidrs=("10.0.0.0/8",))
    await store.add_app(rotated, "new")
    assert await store.find_app("old") is None
    assert await store.find_app("new") == rotated
    assert await store.list_sessions(LAB, include_closed=True) == [session()]


async def test_apps_are_listed_oldest_first(store: Store) -> None:
    """By creation, ties by name."""
    for name, at in (("c", 7), ("b", 7), ("a", 8)):
        await store.add_app(app(name, at=at), f"digest of {name}")
    assert [row.name for row in await store.list_apps()] == ["b", "c", "a"]


# --- files ----------------------------------------------------------------------------------------


async def test_a_file_is_claimed_by_its_app_alone(store: Store) -> None:
    """In the order asked for; another app's, an unknown and an expired one look alike."""
    await store.add_file(file("a"), "digest a")
    await store.add_file(file("b", app_name=SHOP), "digest b")
    await store.add_file(file("c", expires_at=1999), "digest c")
    await store.add_file(file("d"), "digest d")
    asked = ["digest d", "digest b", "nobody's", "digest c", "digest a", "digest d"]
    found = await store.claim_files(LAB, asked, now=1999, until=0)
    assert found == ["d", None, None, None, "a", "d"]


async def test_a_file_is_added_once(store: Store) -> None:
    """The same token again is a no-op."""
    await store.add_file(file("a"), "digest")
    await store.add_file(file("b"), "digest")
    assert await store.claim_files(LAB, ["digest"], now=1000, until=0) == ["a"]


async def test_a_file_that_is_held_outlives_its_token(store: Store) -> None:
    """Past its end it is claimed no more, and stays until the last one who holds it is done."""
    await store.add_file(file("a", expires_at=2000), "digest a")
    await store.add_file(file("b", expires_at=2000), "digest b")
    await store.claim_files(LAB, ["digest a"], now=1000, until=2500)
    await store.claim_files(LAB, ["digest a"], now=1001, until=1500)
    assert await store.expire_files(now=1999) == {"a", "b"}
    assert await store.expire_files(now=2000) == {"a"}
    assert await store.claim_files(LAB, ["digest a"], now=2000, until=9999) == [None]
    assert await store.expire_files(now=2500) == set()


# --- sessions -------------------------------------------------------------------------------------


async def test_a_session_comes_back_as_it_went_in(store: Store) -> None:
    """Every field survives, and ``meta`` is the object that was given."""
    row = session(
        model="m",
        can_resume=True,
        last_turn_at=7,
        turn_count=3,
        meta={"name": "ä\ud83d\ude00", "deep": [{"n": 1.5}, None, True], "lone": "\ud800"},
    )
    await store.add_session(row)
    found = await store.find_session(row.session_id, LAB)
    assert found is not None
    assert found.meta["deep"] == [{"n": 1.5}, None, True]
    assert (found.model, found.can_resume, found.permissions) == ("m", True, "ask")
    assert (found.last_turn_at, found.turn_count, found.created_at) == (7, 3, 1001)
    assert await store.list_audit(row.session_id) == [AuditRow(row.session_id, "create", 1001)]


async def test_adding_a_session_may_be_repeated(store: Store) -> None:
    """A second time with the same id changes neither row nor audit."""
    await store.add_session(session())
    await store.add_session(session(model="other"))
    assert await store.find_session(session_id(1), LAB) == session()
    assert len(await store.list_audit(session_id(1))) == 1


async def test_another_apps_session_is_none(store: Store) -> None:
    """Whose session it is not gets what they would get for one that never existed."""
    await store.add_session(session())
    assert await store.find_session(session_id(1), SHOP) is None
    assert await store.find_session(session_id(2), LAB) is None


async def test_sessions_are_listed_newest_first(store: Store) -> None:
    """Of one app only, by creation, ties by id; closed ones can be left out."""
    for number, at in ((3, 50), (1, 60), (2, 50)):
        await store.add_session(session(number, created_at=at))
    await store.add_session(session(4, app_name=SHOP))
    await store.close_session(session_id(2), event="close", cause="asked", at=70)
    everything = await store.list_sessions(LAB, include_closed=True)
    still_open = await store.list_sessions(LAB, include_closed=False)
    assert [row.session_id for row in everything] == [session_id(n) for n in (1, 2, 3)]
    assert [row.session_id for row in still_open] == [session_id(n) for n in (1, 3)]
    assert len(await store.list_all_sessions()) == 4


async def test_a_session_closes_once(store: Store) -> None:
    """The first close says True and is in the audit with its cause; later ones change nothing."""
    await store.add_session(session())
    first = await store.close_session(session_id(1), event="sweep_close", cause="idle", at=70)
    second = await store.close_session(session_id(1), event="close", cause="asked", at=80)
    row = await store.find_session(session_id(1), LAB)
    assert (first, second) == (True, False)
    assert row is not None
    assert (row.closed_at, row.close_cause) == (70, "idle")
    audit = await store.list_audit(session_id(1))
    assert audit[1:] == [AuditRow(session_id(1), "sweep_close", 70, {"cause": "idle"})]


async def test_closing_nothing_is_false(store: Store) -> None:
    """A session that is not there is not closed, and leaves no audit."""
    assert not await store.close_session(session_id(1), event="close", cause="asked", at=80)
    assert await store.list_audit(session_id(1)) == []


@pytest.mark.parametrize("was_written", [True, False])
async def test_undoing_leaves_no_row_and_the_same_audit(store: Store, was_written: bool) -> None:
    """Whether or not its creation was written, the row is gone and the audit tells both halves."""
    if was_written:
        await store.add_session(session())
    for _ in range(2):
        await store.undo_session(session(), cause="caller_gone", at=90)
    assert await store.find_session(session_id(1), LAB) is None
    assert await store.list_audit(session_id(1)) == [
        AuditRow(session_id(1), "create", 1001),
        AuditRow(session_id(1), "close", 90, {"cause": "caller_gone"}),
    ]


async def test_an_undone_or_deleted_id_stays_spent(store: Store) -> None:
    """An id is never used again: a late repetition of its creation does not bring it back."""
    await store.add_session(session(1))
    await store.delete_session(session_id(1), at=80)
    await store.undo_session(session(2), cause="caller_gone", at=90)
    await store.add_session(session(1))
    await store.add_session(session(2))
    assert await store.list_all_sessions() == []


async def test_deleting_takes_the_turns_and_keeps_the_audit(store: Store) -> None:
    """Row and texts are gone, ``hard_delete`` says how many turns there were; once."""
    await store.add_session(session())
    await store.begin_turn(turn())
    assert await store.delete_session(session_id(1), at=99)
    assert not await store.delete_session(session_id(1), at=99)
    assert await store.find_session(session_id(1), LAB) is None
    assert await store.list_turns(session_id(1), before=None, limit=9) == []
    audit = await store.list_audit(session_id(1))
    assert audit[-1] == AuditRow(session_id(1), "hard_delete", 99, {"turns": 1})
    assert len(audit) == 2


async def test_whether_an_agent_can_resume_is_kept(store: Store) -> None:
    """The flag goes both ways, and a session that is gone is left gone."""
    await store.add_session(session())
    for can_resume in (True, False):
        await store.set_can_resume(session_id(1), can_resume=can_resume)
        row = await store.find_session(session_id(1), LAB)
        assert row is not None
        assert row.can_resume is can_resume
    await store.set_can_resume(session_id(2), can_resume=True)
    assert await store.find_session(session_id(2), LAB) is None


# --- turns ----------------------------------------------------------------------------------------


async def test_a_turn_is_written_before_it_has_an_ending(store: Store) -> None:
    """Begun: in the list without an end, counted in the session, which was used just now."""
    await store.add_session(session())
    await store.begin_turn(turn())
    row = await store.find_session(session_id(1), LAB)
    assert row is not None
    assert (row.turn_count, row.last_turn_at) == (1, 2000)
    (found,) = await store.list_turns(session_id(1), before=None, limit=9)
    assert (found.start, found.end) == (turn(), None)


async def test_beginning_a_turn_may_be_repeated(store: Store) -> None:
    """The same index again changes neither turn nor session."""
    await store.add_session(session())
    await store.begin_turn(turn())
    await store.begin_turn(turn(prompt="something else", at=2500))
    (found,) = await store.list_turns(session_id(1), before=None, limit=9)
    row = await store.find_session(session_id(1), LAB)
    assert found.start == turn()
    assert row is not None
    assert (row.turn_count, row.last_turn_at) == (1, 2000)


async def test_turns_may_be_written_out_of_order(store: Store) -> None:
    """The count is the highest index given, the last use the latest."""
    await store.add_session(session())
    await store.begin_turn(turn(index=2, at=2100))
    await store.begin_turn(turn(index=1, at=2000))
    row = await store.find_session(session_id(1), LAB)
    assert row is not None
    assert (row.turn_count, row.last_turn_at) == (2, 2100)


async def test_no_turn_begins_on_a_closed_session(store: Store) -> None:
    """Closed says why; missing is not found; neither writes a turn."""
    with pytest.raises(SessionNotFound):
        await store.begin_turn(turn())
    await store.add_session(session())
    await store.close_session(session_id(1), event="close", cause="not_resumable", at=1500)
    with pytest.raises(SessionClosed) as closed:
        await store.begin_turn(turn())
    assert closed.value.cause == "not_resumable"
    assert await store.list_turns(session_id(1), before=None, limit=9) == []


async def test_a_turn_gets_exactly_one_ending(store: Store) -> None:
    """The first ending stays, is audited once, and is when the session was last used."""
    await store.add_session(session())
    await store.begin_turn(turn())
    assert await store.end_turn(ended())
    assert not await store.end_turn(ended(ending="failed", text="no", at=2500))
    (found,) = await store.list_turns(session_id(1), before=None, limit=9)
    row = await store.find_session(session_id(1), LAB)
    assert found.end == ended()
    assert row is not None
    assert row.last_turn_at == 2003
    assert [line.event for line in await store.list_audit(session_id(1))] == ["create", "turn"]


async def test_the_audit_of_a_turn_has_texts_on_demand(store: Store) -> None:
    """Given the prompt, it keeps prompt and answer; they outlive the session's own."""
    await store.add_session(session())
    await store.begin_turn(turn(prompt="geheim"))
    await store.end_turn(attrs.evolve(ended(text="antwort"), audited_prompt="geheim"))
    (row,) = await store.list_turns(session_id(1), before=None, limit=1)
    assert row.end == ended(text="antwort")
    await store.delete_session(session_id(1), at=3000)
    _, audited, _ = await store.list_audit(session_id(1))
    assert (audited.meta["prompt"], audited.meta["text"]) == ("geheim", "antwort")


async def test_the_audit_of_a_turn_has_counts_only(store: Store) -> None:
    """Sizes and our own words: nothing that caller or agent said."""
    await store.add_session(session())
    await store.begin_turn(turn(prompt="geheim ä"))
    await store.end_turn(ended(text="antwort ö!"))
    audit = await store.list_audit(session_id(1))
    assert audit[-1] == AuditRow(
        session_id(1),
        "turn",
        2003,
        {
            "turn_index": 1,
            "ending": "completed",
            "duration_ms": 3000,
            "prompt_bytes": 9,
            "text_bytes": 11,
        },
    )


async def test_a_turn_that_is_not_there_cannot_end(store: Store) -> None:
    """An ending without a turn, or for a deleted session, is False and writes nothing."""
    await store.add_session(session())
    assert not await store.end_turn(ended())
    assert [line.event for line in await store.list_audit(session_id(1))] == ["create"]


async def test_turns_are_paged_newest_first(store: Store) -> None:
    """``before`` is an upper bound that is left out itself; ``limit`` bounds the page."""
    await store.add_session(session())
    for index in range(1, 6):
        await store.begin_turn(turn(index=index))

    async def page(before: int | None, limit: int) -> list[int]:
        found = await store.list_turns(session_id(1), before=before, limit=limit)
        return [row.start.turn_index for row in found]

    assert await page(None, 3) == [5, 4, 3]
    assert await page(3, 3) == [2, 1]
    assert await page(1, 3) == []
    assert await page(None, 0) == await page(None, -1) == []


async def test_at_start_up_every_open_turn_is_interrupted(store: Store) -> None:
    """One ending each, outcome unknown, in the audit; turns that had an ending keep it."""
    await store.add_session(session(1))
    await store.add_session(session(2))
    for start in (turn(1, 1), turn(1, 2), turn(2, 1, at=9000)):
        await store.begin_turn(start)
    await store.end_turn(ended(1, 1))
    assert await store.interrupt_turns(at=2010) == 2
    assert await store.interrupt_turns(at=2020) == 0
    second, first = await store.list_turns(session_id(1), before=None, limit=9)
    assert first.end == ended(1, 1)
    assert second.end is not None
    assert (second.end.ending, second.end.ended_at) == ("interrupted", 2010)
    assert (second.end.duration_ms, second.end.text) == (10_000, "")
    (future,) = await store.list_turns(session_id(2), before=None, limit=9)
    assert future.end is not None
    assert future.end.duration_ms == 0  # the clock was set back meanwhile
    assert [line.event for line in await store.list_audit(session_id(2))] == ["create", "turn"]


async def test_an_agents_broken_text_does_not_cost_the_ending(store: Store) -> None:
    """A lone surrogate becomes U+FFFD, pairs and NUL survive: the turn ends all the same."""
    await store.add_session(session())
    await store.begin_turn(turn(prompt="a\ud800b"))
    assert await store.end_turn(ended(text="x\udfff \ud83d\ude00 \0 y"))
    (found,) = await store.list_turns(session_id(1), before=None, limit=9)
    assert found.start.prompt == "a\ufffdb"
    assert found.end is not None
    assert found.end.text == "x\ufffd \U0001f600 \0 y"


async def test_a_healthy_ledger_passes_its_check(store: Store) -> None:
    """The check writes nothing that anybody could read."""
    await store.add_session(session())
    await store.check()
    assert await store.list_all_sessions() == [session()]
    assert len(await store.list_audit(session_id(1))) == 1


async def test_what_a_caller_keeps_is_not_the_ledgers(store: Store) -> None:
    """Editing ``meta`` after it was stored, or after it was read, changes no row."""
    meta = {"k": ["v"]}
    await store.add_session(session(meta=meta))
    meta["k"].append("mine")
    found = await store.find_session(session_id(1), LAB)
    assert found is not None
    found.meta["k"].append("mine too")
    again = await store.find_session(session_id(1), LAB)
    assert again is not None
    assert again.meta == {"k": ["v"]}


async def test_a_cancelled_caller_is_cancelled(store: Store) -> None:
    """Every method is a checkpoint, so a scope that is cancelled already leaves at once."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.add_session(session())
    assert scope.cancelled_caught
    await store.undo_session(session(), cause="caller_gone", at=90)
    assert await store.list_all_sessions() == []


async def test_a_list_of_turns_may_be_cut(store: Store) -> None:
    """Prompts and texts to so many characters, whatever characters they are."""
    await store.add_session(session())
    await store.begin_turn(turn(prompt="ä\ud83d\ude00\0bcd"))
    await store.end_turn(ended(text="äöü"))
    (cut,) = await store.list_turns(session_id(1), before=None, limit=5, max_chars=2)
    assert (cut.start.prompt, cut.end and cut.end.text) == ("ä\U0001f600", "äö")
    (cut,) = await store.list_turns(session_id(1), before=None, limit=5, max_chars=3)
    assert cut.start.prompt == "ä\U0001f600\0"
