"""Clients take turns: by the pure order, and by a core on the fake backend."""

from __future__ import annotations

from collections import Counter, defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from mm35local.engine.api import Failed, Finished, RequestEvent, Started, Submit
from mm35local.engine.core import EngineCore
from mm35local.engine.fairness import in_turn, surplus
from mm35local.engine.request import Request
from mm35local.errors import EngineOverloaded
from mm35local.types import Prompt, SamplingParams
from tests.fakes.backend import FakeBackend

NUM_SLOTS = 3
N_CTX = 400


def make_request(arrival: int, client: str, *, is_started: bool = False) -> Request:
    return Request(arrival, arrival, SamplingParams(), [1], 1, 8, client=client, is_started=is_started)


clients_strategy = st.lists(st.sampled_from("abc"), max_size=20)


@given(waiting=clients_strategy, running=clients_strategy)
def test_who_is_next_has_the_fewest_slots_and_a_client_s_own_order_stays(
    waiting: list[str], running: list[str]
) -> None:
    requests = [make_request(number, client) for number, client in enumerate(waiting)]
    order = in_turn(requests, [make_request(100 + number, client) for number, client in enumerate(running)])
    num_slots, left = Counter(running), Counter(waiting)
    for request in order:
        assert num_slots[request.client] == min(num_slots[client] for client in left if left[client])
        num_slots[request.client] += 1
        left[request.client] -= 1
    for client in set(waiting):
        own = [request.arrival for request in order if request.client == client]
        assert own == sorted(own)
    assert len(order) == len(waiting)


def test_an_interrupted_answer_comes_first_and_is_never_refused() -> None:
    begun = make_request(9, "a", is_started=True)
    requests = [make_request(1, "a"), make_request(2, "b"), begun]
    assert in_turn(requests, [])[0] is begun
    assert surplus(requests).arrival == 2


class Crowd:
    """Requests of several clients on one core. `waiting` is what each client has asked for and not seen begin."""

    def __init__(self, max_waiting: int = 200) -> None:
        backend = FakeBackend(num_slots=NUM_SLOTS, capacity=N_CTX, n_batch=16)
        self.core = EngineCore(backend, n_ctx=N_CTX, num_slots=NUM_SLOTS, n_batch=16, max_waiting=max_waiting)
        self.clients: dict[int, str] = {}
        self.waiting: dict[str, int] = defaultdict(int)
        self.running: dict[str, int] = defaultdict(int)
        self.begun: list[str] = []
        self.refused: list[str] = []

    def ask(self, client: str, num_tokens: int = 2) -> None:
        number = len(self.clients) + 1
        self.clients[number] = client
        self.waiting[client] += 1
        params = SamplingParams(temperature=0, max_tokens=num_tokens, ignore_eos=True)
        self.core.submit(Submit(number, Prompt((number % 60 + 1,)), params, client))
        self.see(self.core.take_events())

    def step(self) -> None:
        self.see(self.core.step())

    def see(self, events: list[RequestEvent]) -> None:
        ended = [event for event in events if isinstance(event, Finished)]
        for event in events:
            client = self.clients[event.request_id]
            if isinstance(event, Started):
                self.begin(client)
            elif isinstance(event, Failed):
                assert isinstance(event.error, EngineOverloaded)
                self.waiting[client] -= 1
                self.refused.append(client)
        for event in ended:
            self.running[self.clients[event.request_id]] -= 1

    def begin(self, client: str) -> None:
        others = [self.running[other] for other, number in self.waiting.items() if number and other != client]
        assert self.running[client] <= min(others, default=N_CTX), "somebody with fewer slots waits"
        self.waiting[client] -= 1
        self.running[client] += 1
        self.begun.append(client)

    def drain(self) -> None:
        while self.core.has_work:
            self.step()
        assert not any(self.waiting.values())
        assert not any(self.running.values())


@settings(max_examples=60, deadline=None)
@given(
    operations=st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 6), st.integers(0, 3)), max_size=60),
)
def test_nobody_gets_another_slot_while_one_with_fewer_waits(operations: list[tuple[str, int, int]]) -> None:
    crowd = Crowd()
    for client, num_tokens, num_steps in operations:
        crowd.ask(client, num_tokens)
        for _ in range(num_steps):
            crowd.step()
    crowd.drain()
    assert len(crowd.begun) == len(operations)


def test_one_client_s_fifty_requests_do_not_keep_another_waiting() -> None:
    crowd = Crowd()
    for number in range(50):
        crowd.ask("greedy", num_tokens=2 + number)
    crowd.ask("modest")
    crowd.drain()
    assert crowd.begun.index("modest") == NUM_SLOTS, "the first slot that gets free is its"


def test_a_full_queue_refuses_whoever_fills_it() -> None:
    crowd = Crowd(max_waiting=10)
    for _ in range(NUM_SLOTS + 10):
        crowd.ask("greedy")
    crowd.ask("modest")
    assert crowd.refused == ["greedy"]
    crowd.ask("greedy")
    assert crowd.refused == ["greedy", "greedy"]
    crowd.drain()
    assert crowd.begun.count("modest") == 1
