using Drover.Orchestrator.Backlog;
using Drover.Workflows;

namespace Drover.Cli;

/// <summary>Something that happened in a run.</summary>
internal sealed record RunEvent(DateTimeOffset Time, string Kind, string? Task, int? Attempt, string Text);

/// <summary>A task that is being worked on.</summary>
internal sealed record RunWorker(string Task, string Title, string Agent, string LastEvent, TimeSpan Elapsed);

/// <summary>How a live run stands: the workers, and the tasks in scope by shown status.</summary>
internal sealed record RunSnapshot(IReadOnlyList<RunWorker> Workers, IReadOnlyDictionary<string, int> Counts);

/// <summary>How a run ended.</summary>
internal sealed record RunReport(string? Run, string Outcome, int ExitCode, string Target, IReadOnlyDictionary<string, int> Counts, IReadOnlyList<StatusTask> Tasks);

/// <summary>What the command line asks of a run.</summary>
internal sealed record RunRequest(Project Project, RunOptions Given, string Target, bool Verbose);

/// <summary>A run in this process: the commands' only way to the orchestrator's run loop.</summary>
internal sealed class RunSession : IAsyncDisposable
{
    private RunSession()
    {
    }

    /// <summary>Starts or adopts the run.</summary>
    /// <exception cref="DroverException">Whatever stands against it; Conflict when another process holds the run.</exception>
    public static Task<RunSession> StartAsync(RunRequest request, CancellationToken cancellationToken) =>
        throw new DroverException(ErrorCode.Unavailable, "the run loop is not part of this build yet: install a newer one");

    /// <summary>What happens, live, until the run ends.</summary>
    public IAsyncEnumerable<RunEvent> EventsAsync(CancellationToken cancellationToken) => throw new NotSupportedException();

    /// <summary>How the run stands now.</summary>
    public RunSnapshot Snapshot() => throw new NotSupportedException();

    /// <summary>Ends with the run.</summary>
    public Task<RunReport> Completion => throw new NotSupportedException();

    /// <summary>No new work; what runs goes on.</summary>
    public void RequestDrain() => throw new NotSupportedException();

    /// <summary>Stops the agents after their work is saved.</summary>
    public Task StopAgentsAsync() => throw new NotSupportedException();

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;
}
