"""The OpenFlow 1.3 switch tests that ship with os-ken, run by their own tester.

    python -m tests.exams.conformance --switch vnet --category match --results match.json

The tester (`os_ken.tests.switch.tester`) is a controller. It drives two switches that three links join:
the one under examination (datapath 1) and one that it sends and receives test packets with (datapath 2),
which is always Open vSwitch. A case says which flows, groups and meters to install, which packet to
send, and what must come back: this frame by port 2, this packet-in, a table miss, or so many kbit/s.

    cases.py           what is asked: the JSON files of os-ken
    os_ken_tester.py   os-ken's tester, one case at a time; runs in build/venv-conformance
    lab.py             one namespace with both switches and one tester
    run.py             several labs at once
    causes.py          what a case needs, and why a switch fails it
    report.py          tables, and docs/conformance.md out of results/*.json

What is changed in the tester changes no verdict: it waits 1 s instead of 3 s for an answer, sends loads by
the clock instead of by a chain of sleeps, and after a barrier asks Open vSwitch whether its flow cache has
followed, for Open vSwitch's barrier does not promise that. A case without a verdict has failed.
"""
