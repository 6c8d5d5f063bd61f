using Drover.Orchestrator.CodingAgents;

namespace Drover.Orchestrator.Tests.CodingAgents;

/// <summary>A temporary folder with what a contained run needs; ends what a failing test left running.</summary>
internal sealed class ContainedTestFolder : IDisposable
{
    private readonly string token = $"test-{Guid.NewGuid():N}";
    private int runs;

    internal ContainedTestFolder()
    {
        Root = Directory.CreateTempSubdirectory("drover-proc-").FullName;
        Worktree = Directory.CreateDirectory(Path.Combine(Root, "worktree ü 1")).FullName;
        Tmp = Directory.CreateDirectory(Path.Combine(Root, "tmp")).FullName;
    }

    internal string Root { get; }
    internal string Worktree { get; }
    internal string Tmp { get; }
    internal string RunToken => token;
    internal string Log => Path.Combine(Root, "run.log");

    internal Dictionary<string, string> Environment { get; } = new(StringComparer.Ordinal)
    {
        ["PATH"] = System.Environment.GetEnvironmentVariable("PATH") ?? "/usr/bin:/bin",
    };

    internal ContainedProcessSpec Shell(string script) => new()
    {
        Argv = ["/bin/sh", "-c", script],
        WorkingDirectory = Worktree,
        Environment = Environment,
        RunToken = token,
        LogPath = Path.Combine(Root, $"run{++runs}.log"),
    };

    /// <summary>Polls; the bound is generous because it only matters when the test fails.</summary>
    internal static async Task<bool> EventuallyAsync(Func<bool> condition, CancellationToken cancellationToken)
    {
        for (var round = 0; round < 1500; round++)
        {
            if (condition())
                return true;
            await Task.Delay(20, cancellationToken);
        }
        return condition();
    }

    internal bool NothingCarriesTheToken() => ProcessTable.CarriersOf(token).Count == 0;

    public void Dispose()
    {
        ProcessSweep.KillByTokenAsync(token, TimeProvider.System, CancellationToken.None).GetAwaiter().GetResult();
        Directory.Delete(Root, recursive: true);
    }
}
