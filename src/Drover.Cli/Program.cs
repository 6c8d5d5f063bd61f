using Drover.Orchestrator.CodingAgents;

// Before anything else loads: a keeper is started for every agent and gate and must be up in an instant.
if (args is [Keeper.Argument, ..])
    return Keeper.Run();
if (args is [FakeAgentProgram.Argument, ..])
    return FakeAgentProgram.Run();
return 0;
