"""Adapters: agents that were written with a framework, as agents of a runner. `docs/adapters.md` teaches them.

    from runstream.adapters.langgraph import LangGraphAgent
    from runstream.runner import Runner

    Runner("127.0.0.1:7400", agents={"helper": LangGraphAgent(graph)}).run()

Each adapter is a module that imports its framework; this package imports none. Inside: `narration` tells what a
framework streams as reports, `scopes` and `names` keep track of what it is about, `transcript` is what was said before,
for frameworks that are told so. A plain function needs no adapter.
"""
