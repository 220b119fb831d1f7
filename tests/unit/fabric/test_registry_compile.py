"""The registry compiles again what is not as it was; a compiler that has failed is not used again."""

from __future__ import annotations

from typing import Any, cast

import pytest

from tests.generators import three_tier
from vnet.base.errors import InputError
from vnet.fabric.live import registry as registries
from vnet.fabric.live.registry import Registry
from vnet.policy import judge
from vnet.policy.compile import Compiler, compile

ANY = cast(Any, None)


@pytest.fixture
def updated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The fabrics of which a compiler was used again."""
    names: list[str] = []
    update = Compiler.update

    def noted(self: Compiler, topology: Any, inventory: Any) -> Any:
        names.append(topology.name)
        return update(self, topology, inventory)

    monkeypatch.setattr(registries.Compiler, "update", noted)
    return names


def test_what_is_up_is_compiled_again_and_what_is_not_anew(updated: list[str]) -> None:
    registry = Registry(ANY, ANY, ANY)
    first = three_tier().build()
    second = three_tier().policy("late", "app", ingress=["allow web 443/tcp"]).build()
    for world in (first, second):
        assert registry.compile(*world) == compile(*world)
    assert not updated
    registry.fabrics[first[0].name] = ANY
    for world in (first, second, first):
        assert registry.compile(*world).flows == compile(*world).flows
    assert len(updated) == 2


def test_a_compiler_that_has_failed_is_not_used_again(
    monkeypatch: pytest.MonkeyPatch, updated: list[str]
) -> None:
    registry = Registry(ANY, ANY, ANY)
    world = three_tier().build()
    registry.fabrics[world[0].name] = ANY
    registry.compile(*world)
    with monkeypatch.context() as patch:
        patch.setattr(judge, "FIRST_PRIORITY", judge.DEFAULT_PRIORITY)
        with pytest.raises(InputError):
            registry.compile(*three_tier().policy("p", "web", ingress=["allow app 1/tcp"]).build())
    assert registry.compile(*world).flows == compile(*world).flows
    assert len(updated) == 1
