using System.Runtime.Versioning;
using Drover.Cli;
using Drover.Orchestrator.CodingAgents;

// The orchestrator needs sessions, signals and file modes; the refusal for Windows is Repository.OpenAsync's.
[assembly: SupportedOSPlatform("linux")]
[assembly: SupportedOSPlatform("macos")]

// Before anything else loads: a keeper is started for every agent and gate and must be up in an instant.
if (args is [Keeper.Argument, ..])
    return Keeper.Run();
if (args is [FakeAgentProgram.Argument, ..])
    return FakeAgentProgram.Run();
return await CommandLine.RunAsync(args, Caller.OfThisProcess());
