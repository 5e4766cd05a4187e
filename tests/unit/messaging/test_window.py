from flexmeter.messaging.window import Window


def test_it_grows_with_quick_answers_up_to_its_most():
    window = Window(100)
    start = window.limit
    for _ in range(20):
        window.answered(10.0, 10.1)
    assert window.limit == start + 20
    for _ in range(1000):
        window.answered(10.0, 10.1)
    assert window.limit == 100


def test_it_halves_once_for_all_answers_that_were_slow_together():
    window = Window(100)
    for _ in range(1000):
        window.answered(0.0, 0.1)
    for _ in range(50):
        window.answered(10.0, 12.0)
    assert window.limit == 50
    window.answered(12.5, 14.0)
    assert window.limit == 25


def test_it_never_closes():
    window = Window(100)
    for turn in range(100):
        window.answered(10.0 * turn, 10.0 * turn + 5)
    assert window.limit == 4
    assert Window(1).limit == 1


def test_a_broker_that_slows_with_load_is_kept_below_its_limit():
    """A broker that takes 100 messages a second, and 20 clients: nobody waits as long as the broker's five seconds."""
    clients = [Window(1000) for _ in range(20)]
    now_s = 0.0
    waits = []
    for _ in range(300):
        wait_s = sum(client.limit for client in clients) / 100
        waits.append(wait_s)
        for client in clients:
            for _ in range(client.limit):
                client.answered(now_s, now_s + wait_s)
        now_s += wait_s
    assert max(waits[20:]) < 5


def test_after_a_cut_off_it_starts_with_two_and_at_most_doubles_every_second():
    window = Window(100, careful=True)
    limits = []
    for second in range(8):
        for answer in range(500):
            window.answered(10.0 + second, 10.0 + second + answer / 1000)
        limits.append(window.limit)
    assert limits == [2, 4, 8, 16, 32, 64, 100, 100]


def test_a_careful_window_still_halves_with_a_slow_answer():
    window = Window(100, careful=True)
    for second in range(5):
        for _ in range(100):
            window.answered(10.0 + second, 10.0 + second)
    window.answered(14.5, 16.0)
    assert window.limit == 16
    started = Window(100, careful=True)
    started.answered(0.0, 1.0)
    assert started.limit == 2
