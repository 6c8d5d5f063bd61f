using System.Runtime.CompilerServices;
using System.Text.Json;
using Drover.Orchestrator.Backlog;
using Drover.Orchestrator.Runs;
using Drover.Workflows.Sqlite;

namespace Drover.Cli;

/// <summary>Something that happened in a run, in words.</summary>
internal sealed record RunEvent(DateTimeOffset Time, string Kind, string? Task, int? Attempt, string Text);

/// <summary>A task that is being worked on.</summary>
internal sealed record RunWorker(string Task, string Title, string Agent, string LastEvent, TimeSpan Elapsed);

/// <summary>How a live run stands: the workers, and the tasks in scope by shown status.</summary>
internal sealed record RunSnapshot(IReadOnlyList<RunWorker> Workers, IReadOnlyDictionary<ShownStatus, int> Counts);

/// <summary>How a run ended, with the tasks in its scope. <c>Outside</c>: the unfinished tasks of other epics, and of none, which a run of one epic leaves alone.</summary>
internal sealed record RunEnd(RunReport Report, StatusModel Status, string? Epic, int Outside);

/// <summary>What the command line asks of a run. <c>Found</c> is said when the run has started, so that a refusal stays one line.</summary>
internal sealed record RunRequest(Project Project, RunOptions Given, bool Resume, string? Found = null);

/// <summary>A run in this process, in the words of a terminal.</summary>
internal sealed class RunSession : IAsyncDisposable
{
    private readonly RunHost _host;
    private readonly Project _project;
    private readonly System.Collections.Concurrent.ConcurrentDictionary<string, string> _titles = new(StringComparer.Ordinal);
    private IReadOnlyDictionary<ShownStatus, int> _counts = new Dictionary<ShownStatus, int>();
    private volatile bool _stale = true;

    private RunSession(RunHost host, Project project) => (_host, _project) = (host, project);

    /// <summary>Starts or adopts the run.</summary>
    /// <exception cref="Workflows.DroverException">Whatever stands against it; Conflict when another process holds the repository.</exception>
    public static async Task<RunSession> StartAsync(RunRequest request, CancellationToken cancellationToken)
    {
        Project project = request.Project;
        RunHost host = await RunHost.StartAsync(new RunHostOptions
        {
            Directory = project.Root,
            Settings = project.Settings,
            Dialect = new SqliteDialect(project.Database.Path, create: false),
            Given = request.Given,
            ResumeOnly = request.Resume,
        }, cancellationToken);
        // Asked for once before the events are, because they end with it.
        _ = host.Completion;
        return new RunSession(host, project);
    }

    /// <summary>What was found and changed at the start, one line each.</summary>
    public IEnumerable<string> Opening()
    {
        foreach (string line in _host.Found)
            yield return line;
        // Always with its scope: a run of one epic leaves the others alone, also when it is adopted.
        string scope = _host.Run.Epic is { } epic ? $" (epic {epic} only)" : "";
        yield return _host.Adopted ? $"continuing the unfinished run {_host.Run.Id}{scope}"
            : $"run {_host.Run.Id}: {_host.Run.Workers} worker(s), landing on {Terminal.StatusStyle.Branch(_host.Run.Target)}{scope}";
        foreach (string line in _host.Changes)
            yield return line;
    }

    /// <summary>What happens, live, until the run ends.</summary>
    public async IAsyncEnumerable<RunEvent> EventsAsync([EnumeratorCancellation] CancellationToken cancellationToken)
    {
        await foreach (EventRow row in _host.EventsAsync(cancellationToken))
        {
            _stale = true;
            if (EventText.Of(row) is not { } one)
                continue;
            // Watching people know titles, not ids.
            yield return one is { Kind: "task.started", Task: { } task } ? one with { Text = $"{one.Text}: {await TitleAsync(task)}" } : one;
        }
    }

    /// <summary>How the run stands now; the counts are read anew only when something has happened.</summary>
    public async Task<RunSnapshot> SnapshotAsync(CancellationToken cancellationToken)
    {
        if (_stale)
        {
            _stale = false;
            _counts = await _host.CountsAsync(cancellationToken);
        }
        var workers = new List<RunWorker>();
        foreach (WorkerView worker in _host.Workers)
        {
            string last = worker.LastLine.Length > 0 && worker.LastLine != worker.Phase ? $"{worker.Phase}: {worker.LastLine}" : worker.Phase;
            workers.Add(new RunWorker(worker.Attempt > 1 ? $"{worker.Task}#{worker.Attempt}" : worker.Task, await TitleAsync(worker.Task), worker.Agent, last,
                TimeProvider.System.GetElapsedTime(worker.Since)));
        }
        return new RunSnapshot(workers, _counts);
    }

    private async ValueTask<string> TitleAsync(string task)
    {
        if (!_titles.TryGetValue(task, out string? title))
            _titles[task] = title = await _host.Client.ReadAsync(db => Board.Find(db, _project.Id, task)?.Title ?? "", CancellationToken.None);
        return title;
    }

    /// <summary>Waits for the end; returns the report with every task in the run's scope.</summary>
    public async Task<RunEnd> CompletionAsync()
    {
        RunReport report = await _host.Completion;
        return await _host.Client.ReadAsync(db =>
        {
            RunRow run = Board.FindRun(db, _project.Id, report.RunId) ?? _host.Run;
            long outside = run.Epic is null ? 0 : db.Number(
                "SELECT COUNT(*) FROM {d}tasks WHERE project = @project AND (epic IS NULL OR epic <> @epic) AND status NOT IN ('completed', 'cancelled')",
                ("@project", _project.Id), ("@epic", run.Epic));
            return new RunEnd(report, BacklogQueries.Status(db, _project.Id, run.Target, run.Epic), run.Epic, (int)outside);
        });
    }

    /// <summary>No new work; what runs goes on. Returns how many tasks run.</summary>
    public Task<int> RequestDrainAsync() => _host.RequestDrainAsync();

    /// <summary>Stops the agents after their work is saved.</summary>
    public Task StopAgentsAsync() => _host.StopAgentsAsync();

    public ValueTask DisposeAsync() => _host.DisposeAsync();
}

/// <summary>Events of the log in words.</summary>
internal static class EventText
{
    /// <summary>Null for an event that says nothing to somebody who watches.</summary>
    public static RunEvent? Of(EventRow row)
    {
        using JsonDocument json = JsonDocument.Parse(row.Data);
        JsonElement data = json.RootElement;
        string Get(string name) => data.TryGetProperty(name, out JsonElement value) ? value.ToString() : "";
        string Oid(string name) => Get(name) is { Length: > 10 } oid ? oid[..10] : Get(name);
        string? text = row.Type switch
        {
            "task.claimed" => Get("continuation") is "" or "0" ? "claimed" : "continues",
            "task.started" => "started",
            "task.phase" => Get("phase"),
            "task.completed" => Get("outcome") == "landed" ? $"landed as {Oid("oid")}" : $"completed without a change: {Get("reason")}",
            "task.retrying" => $"attempt failed, trying again: {Get("error")}",
            "task.failed" => $"failed: {Get("error")}",
            "task.paused" => $"waits for you: {Get("reason")}: {Get("question")}",
            "task.released" => $"released, will be continued: {Get("reason")}",
            "task.cancelled" => "cancelled" + (Get("reason") is { Length: > 0 } reason ? $": {reason}" : ""),
            "task.retried" => "opened again",
            "task.resolved" => $"answered: {Get("answer")}",
            "task.created" => $"added: {Get("title")}",
            "task.blocked" => $"blocked by {Get("by")}",
            "epic.created" => $"epic added: {Get("title")}",
            "landing.queued" => "passed its test, waits to land",
            "landing.intended" => "landing",
            "landing.held" => $"landing is held: {Get("reason")} {Get("paths").ReplaceLineEndings(", ")}",
            "landing.conflict" => $"{Get("reason")}: the agent gets one turn to solve it",
            "landing.red" => "the test command fails on the moved target",
            "run.started" or "run.resumed" or "run.ended" => null,
            "run.interrupted" => "interrupted: no new work",
            // A newer program may have written others.
            _ => row.Type[(row.Type.IndexOf('.', StringComparison.Ordinal) + 1)..].Replace('-', ' '),
        };
        return text is null ? null
            : new RunEvent(DateTimeOffset.FromUnixTimeMilliseconds(row.At), row.Type, row.Task, int.TryParse(Get("attempt"), out int n) ? n : null, text.ReplaceLineEndings(" "));
    }
}
