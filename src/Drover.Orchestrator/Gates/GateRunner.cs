using System.Security.Cryptography;
using System.Text;
using Drover.Orchestrator.CodingAgents;

namespace Drover.Orchestrator.Gates;

/// <summary>One run of a test or set-up command in a folder that already holds the tree to be tested.</summary>
internal sealed record GateRequest
{
    /// <summary>What is run.</summary>
    public required GateCommand Command { get; init; }

    /// <summary>Where, absolute: the gate worktree, never the agent's.</summary>
    public required string Folder { get; init; }

    /// <summary>Where the output is kept.</summary>
    public required string LogPath { get; init; }

    /// <summary>TMPDIR of this run, outside the folder; made when absent.</summary>
    public required string TmpDir { get; init; }

    /// <summary>See <see cref="ContainedProcessSpec.RunToken"/>.</summary>
    public required string RunToken { get; init; }

    /// <summary>The operator's environment and the names that pass. No agent credentials reach a gate: it runs agents' code.</summary>
    public required ContainedEnvironment Environment { get; init; }

    /// <summary>Variables set besides the list, such as where git's search for a repository ends.</summary>
    public IReadOnlyDictionary<string, string> Facts { get; init; } = new Dictionary<string, string>();

    /// <summary>Limits of time. The silence clock is off by default: a build may print nothing for long.</summary>
    public ProcessClocks Clocks { get; init; } = ProcessClocks.Default with { Silence = null };

    /// <summary>How to start the keeper.</summary>
    public KeeperCommand Keeper { get; init; } = KeeperCommand.Default;
}

/// <summary>What a gate, or set-up, showed.</summary>
internal enum GateVerdict
{
    /// <summary>Exit code 0.</summary>
    Passed,
    /// <summary>Another exit code, a signal, or a clock: evidence against the tree.</summary>
    Failed,
    /// <summary>The caller stopped it: no evidence.</summary>
    Interrupted,
    /// <summary>It could not be run, or its keeper was lost: no evidence, an error of the surroundings.</summary>
    Broken,
}

/// <summary>The result of a gate or set-up run.</summary>
/// <param name="Verdict">What it showed.</param>
/// <param name="ExitCode">The command's exit code, when it exited.</param>
/// <param name="Signal">The signal that ended it, when one did.</param>
/// <param name="Clock">The clock that ended it, when one did.</param>
/// <param name="Tail">The end of its output, redacted, for the agent's next turn.</param>
/// <param name="Problem">One line, sanitized: why it did not pass; null when it passed.</param>
/// <param name="LogPath">The whole output.</param>
/// <param name="Duration">How long it took.</param>
/// <param name="Survivors">Processes that could not be ended.</param>
internal sealed record GateResult(
    GateVerdict Verdict, int? ExitCode, int? Signal, ProcessEnd? Clock, string Tail, string? Problem, string LogPath, TimeSpan Duration,
    IReadOnlyList<ProcessIdentity> Survivors)
{
    /// <summary>Whether the tree may land.</summary>
    internal bool Passed => Verdict == GateVerdict.Passed;
}

/// <summary>Runs test commands, contained like agents because they run agents' code.</summary>
internal static class GateRunner
{
    /// <summary>Runs the command. Cancelling stops it and yields <see cref="GateVerdict.Interrupted"/>.</summary>
    internal static async Task<GateResult> RunAsync(GateRequest request, ProcessHooks hooks, TimeProvider time, CancellationToken cancellationToken)
    {
        PrivateFiles.MakeFolder(request.TmpDir);
        PrivateFiles.MakeFolder(Path.GetDirectoryName(request.LogPath)!);
        var outcome = await ContainedProcess.RunAsync(
            new()
            {
                Argv = request.Command.Argv,
                WorkingDirectory = request.Folder,
                Environment = request.Environment.Build(request.TmpDir, [], request.Facts),
                RunToken = request.RunToken,
                LogPath = request.LogPath,
                Clocks = request.Clocks,
                Secrets = request.Environment.SecretValues([]),
                Keeper = request.Keeper,
            },
            hooks, time, cancellationToken);
        var (verdict, problem) = Judge(outcome);
        var clock = outcome.End is ProcessEnd.StartClock or ProcessEnd.SilenceClock or ProcessEnd.TotalClock ? outcome.End : (ProcessEnd?)null;
        return new(verdict, outcome.ExitCode, outcome.Signal, clock, outcome.Tail, problem, request.LogPath, outcome.Duration, outcome.Survivors);
    }

    private static (GateVerdict Verdict, string? Problem) Judge(ProcessOutcome outcome) => outcome switch
    {
        { End: ProcessEnd.NotStarted or ProcessEnd.KeeperLost } => (GateVerdict.Broken, TerminalText.SanitizeLine(outcome.Problem ?? "it could not be run")),
        { End: ProcessEnd.Stopped } => (GateVerdict.Interrupted, "stopped on request"),
        { End: ProcessEnd.TotalClock } => (GateVerdict.Failed, "it took too long"),
        { End: ProcessEnd.SilenceClock or ProcessEnd.StartClock } => (GateVerdict.Failed, "it printed nothing for too long"),
        { ExitCode: 0 } => (GateVerdict.Passed, null),
        { ExitCode: { } code } => (GateVerdict.Failed, $"exit code {code}"),
        _ => (GateVerdict.Failed, $"ended by signal {outcome.Signal}"),
    };
}

/// <summary><c>worktree.setup</c>: makes a fresh worktree buildable. Run like a gate; repeated only when the lock files change.</summary>
internal static class SetupCommand
{
    private static readonly string[] LockFiles =
    [
        "packages.lock.json", "Directory.Packages.props", "global.json", "nuget.config", "package-lock.json", "npm-shrinkwrap.json", "yarn.lock",
        "pnpm-lock.yaml", "bun.lock", "bun.lockb", "Cargo.lock", "go.sum", "poetry.lock", "uv.lock", "Pipfile.lock", "requirements.txt", "Gemfile.lock",
        "composer.lock",
    ];

    /// <summary>Runs the command in the worktree.</summary>
    internal static Task<GateResult> RunAsync(GateRequest request, ProcessHooks hooks, TimeProvider time, CancellationToken cancellationToken) =>
        GateRunner.RunAsync(request, hooks, time, cancellationToken);

    /// <summary>A digest of the command and of the lock files at the top of the folder: while it is the same, what set-up made is still good.</summary>
    internal static string KeyOf(GateCommand command, string folder)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        hash.AppendData(Encoding.UTF8.GetBytes(command.Text + "\0"));
        foreach (var name in LockFiles)
        {
            var path = Path.Combine(folder, name);
            if (!File.Exists(path))
                continue;
            hash.AppendData(Encoding.UTF8.GetBytes(name + "\0"));
            hash.AppendData(SHA256.HashData(File.ReadAllBytes(path)));
        }
        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }
}
