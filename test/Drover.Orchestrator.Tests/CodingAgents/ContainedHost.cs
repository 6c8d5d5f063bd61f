using System.Diagnostics;
using System.Runtime.CompilerServices;
using Drover.Orchestrator.CodingAgents;

namespace Drover.Orchestrator.Tests.CodingAgents;

/// <summary>
/// An orchestrator that can be killed: this test program, started again with an environment variable, runs one
/// contained process before its own entry point. No lambda may be used in it: other threads cannot enter this
/// assembly while its module initializer runs.
/// </summary>
internal static class ContainedHost
{
    private const string Variable = "DROVER_TEST_CONTAINED_HOST";

    internal static Process Start(string folder, string token, string script)
    {
        var start = new ProcessStartInfo(KeeperCommand.Default.FileName == "dotnet" ? "dotnet" : KeeperCommand.Default.FileName)
        {
            UseShellExecute = false,
            RedirectStandardOutput = true,
        };
        start.ArgumentList.Add(typeof(ContainedHost).Assembly.Location);
        start.Environment[Variable] = $"{folder}\n{token}\n{script}";
        return Process.Start(start)!;
    }

#pragma warning disable CA2255 // a module initializer is the one way to a second entry point in a test program
    [ModuleInitializer]
#pragma warning restore CA2255
    internal static void RunIfAsked()
    {
        if (Environment.GetEnvironmentVariable(Variable) is not { } text)
            return;
        var parts = text.Split('\n', 3);
        var spec = new ContainedProcessSpec
        {
            Argv = ["/bin/sh", "-c", parts[2]],
            WorkingDirectory = parts[0],
            Environment = new Dictionary<string, string> { ["PATH"] = Environment.GetEnvironmentVariable("PATH")! },
            RunToken = parts[1],
            LogPath = Path.Combine(parts[0], "host.log"),
        };
        var outcome = ContainedProcess.RunAsync(spec, new(), TimeProvider.System, CancellationToken.None).GetAwaiter().GetResult();
        Environment.Exit(outcome.ExitCode ?? 99);
    }
}
