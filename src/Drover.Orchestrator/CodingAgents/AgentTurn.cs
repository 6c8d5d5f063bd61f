using System.Globalization;

namespace Drover.Orchestrator.CodingAgents;

/// <summary>What all agents have in common: prompt file, environment, the contained run, and the outcome of it.</summary>
internal static class AgentTurn
{
    /// <summary>EX_TEMPFAIL: a program of any kind says "not now" with it.</summary>
    internal const int LimitExitCode = 75;

    internal static async Task<AgentReport> RunAsync(
        ICodingAgent agent, IReadOnlyList<string> argv, AgentRequest request, AgentHooks hooks, KeeperCommand keeper, TimeProvider time,
        CancellationToken cancellationToken)
    {
        PrivateFiles.MakeFolder(request.TmpDir);
        PrivateFiles.Write(request.PromptPath, request.Prompt);
        PrivateFiles.MakeFolder(Path.GetDirectoryName(request.LogPath)!);
        var lastLine = "";
        var outcome = await ContainedProcess.RunAsync(
            new()
            {
                Argv = argv,
                WorkingDirectory = request.Worktree,
                Environment = request.Environment.Build(request.TmpDir, agent.CredentialNames, Facts(request)),
                RunToken = request.RunToken,
                LogPath = request.LogPath,
                StdinFile = request.PromptPath,
                StopGrace = request.StopGrace,
                Clocks = request.Clocks,
                Secrets = request.Environment.SecretValues(agent.CredentialNames),
                Keeper = keeper,
            },
            hooks with
            {
                OnLine = line =>
                {
                    if (!line.IsError && !string.IsNullOrWhiteSpace(line.Text))
                        lastLine = line.Text;
                    hooks.OnLine?.Invoke(line);
                },
            },
            time, cancellationToken);
        return Report(outcome, lastLine);
    }

    private static Dictionary<string, string> Facts(AgentRequest request) => new(StringComparer.Ordinal)
    {
        ["DROVER_RUN_ID"] = request.RunId,
        ["DROVER_TASK_ID"] = request.TaskId,
        ["DROVER_TASK_TITLE"] = request.Title,
        ["DROVER_ATTEMPT"] = request.Attempt.ToString(CultureInfo.InvariantCulture),
        ["DROVER_WORKTREE"] = request.Worktree,
        ["DROVER_PROMPT_FILE"] = request.PromptPath,
    };

    private static AgentReport Report(ProcessOutcome process, string lastLine)
    {
        var kind = process switch
        {
            { End: ProcessEnd.NotStarted } => AgentOutcome.Failed,
            { End: ProcessEnd.KeeperLost } => AgentOutcome.Unknown,
            { End: ProcessEnd.Stopped } => AgentOutcome.Interrupted,
            { End: ProcessEnd.StartClock or ProcessEnd.SilenceClock or ProcessEnd.TotalClock } => AgentOutcome.TimedOut,
            { ExitCode: 0 } => AgentOutcome.Succeeded,
            { ExitCode: LimitExitCode } => AgentOutcome.LimitReached,
            { ExitCode: not null } => AgentOutcome.Failed,
            { Signal: not null } => AgentOutcome.Crashed,
            _ => AgentOutcome.Unknown,
        };
        return new(kind)
        {
            Clock = kind == AgentOutcome.TimedOut ? process.End : null,
            ExitCode = process.ExitCode,
            Signal = process.Signal,
            Summary = Summary(kind, process, TerminalText.SanitizeLine(lastLine, 400)),
            Tail = process.Tail,
            Survivors = process.Survivors,
            Process = process,
        };
    }

    private static string Summary(AgentOutcome kind, ProcessOutcome process, string lastLine) => kind switch
    {
        AgentOutcome.TimedOut when process.End == ProcessEnd.SilenceClock => "stopped: it printed nothing for too long",
        AgentOutcome.TimedOut when process.End == ProcessEnd.StartClock => "stopped: it printed nothing after its start",
        AgentOutcome.TimedOut => "stopped: it took too long",
        AgentOutcome.Interrupted => "stopped on request",
        AgentOutcome.Crashed => $"ended by signal {process.Signal}",
        AgentOutcome.Unknown => process.Problem ?? "its outcome is unknown",
        AgentOutcome.Failed when process.End == ProcessEnd.NotStarted => process.Problem ?? "it could not be started",
        _ when lastLine.Length > 0 => lastLine,
        _ => $"exit code {process.ExitCode}",
    };
}

/// <summary>Files and folders that only the operator may read.</summary>
internal static class PrivateFiles
{
    internal static void MakeFolder(string path)
    {
        if (OperatingSystem.IsWindows())
            Directory.CreateDirectory(path);
        else
            Directory.CreateDirectory(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
    }

    internal static void Write(string path, string text)
    {
        MakeFolder(Path.GetDirectoryName(path)!);
        var options = new FileStreamOptions { Mode = FileMode.Create, Access = FileAccess.Write };
        if (!OperatingSystem.IsWindows())
            options.UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite;
        using var writer = new StreamWriter(path, options);
        writer.Write(text);
    }
}
