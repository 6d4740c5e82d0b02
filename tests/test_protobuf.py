"""Messages of Protocol Buffers, compiled while the program runs."""

import pytest

from shopfloor.protobuf import messages

OLD = 'syntax = "proto3"; package shop; message Price { string sku = 1; }'
NEW = 'syntax = "proto3"; package shop; message Price { string sku = 1; int64 amount = 2; }'


def test_what_one_message_writes_another_of_its_kind_reads() -> None:
    price = messages(NEW).Price
    assert price.FromString(price(sku="A", amount=2**53 + 1).SerializeToString()).amount == 2**53 + 1


def test_two_versions_of_a_message_live_side_by_side() -> None:
    old, new = messages(OLD).Price, messages(NEW).Price
    written = new(sku="A", amount=7).SerializeToString()
    read = old.FromString(written)
    assert read.sku == "A"
    assert not hasattr(read, "amount")
    assert read.SerializeToString() == written


def test_what_protoc_refuses_is_no_message(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="protoc refuses"):
        messages('syntax = "proto3"; message Price { string sku = 1; string name = 1; }')
    assert "already been used" in capfd.readouterr().err
