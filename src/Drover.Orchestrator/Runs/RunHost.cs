using System.Runtime.CompilerServices;
using Drover.Orchestrator.Backlog;
using Drover.Orchestrator.CodingAgents;
using Drover.Orchestrator.Gates;
using Drover.Orchestrator.Git;
using Drover.Orchestrator.Settings;
using Drover.Workflows;
using Drover.Workflows.Storage;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace Drover.Orchestrator.Runs;

/// <summary>What a run needs to be told.</summary>
public sealed record RunHostOptions
{
    /// <summary>A folder inside the repository.</summary>
    public required string Directory { get; init; }

    /// <summary>The settings in force.</summary>
    public required ProjectSettings Settings { get; init; }

    /// <summary>The database; belongs to the host from then on.</summary>
    public required SqlDialect Dialect { get; init; }

    /// <summary>What was given on this command line; a null leaves an adopted run's value.</summary>
    public RunOptions Given { get; init; } = new();

    /// <summary>True for <c>resume</c>: an unfinished run must exist, or work must be left.</summary>
    public bool ResumeOnly { get; init; }

    /// <summary>The clock.</summary>
    public TimeProvider Time { get; init; } = TimeProvider.System;

    /// <summary>Where the engine reports trouble.</summary>
    public ILogger<WorkflowEngine> Logger { get; init; } = NullLogger<WorkflowEngine>.Instance;
}

/// <summary>How a run ended, for the command that ran it.</summary>
/// <param name="RunId">The run.</param>
/// <param name="Outcome">Null only when this process was stopped while the run went on.</param>
/// <param name="Counts">Tasks in the run's scope by shown status.</param>
/// <param name="Waiting">Tasks that are not finished, and why.</param>
/// <param name="ExitCode">0 finished, 1 with failures, 7 stalled, 130 interrupted.</param>
public sealed record RunReport(string RunId, RunOutcome Outcome, IReadOnlyDictionary<ShownStatus, int> Counts, IReadOnlyList<TaskWaits> Waiting, int ExitCode);

/// <summary>
/// A run in this process, from the first check to the report: one owner of the lifetime. Starting and resuming are the same
/// code; what is found decides.
/// </summary>
public sealed class RunHost : IAsyncDisposable
{
    private readonly RunServices _services;
    private readonly WorkflowEngine _engine;
    private readonly RunLock _lock;
    private readonly CancellationTokenSource _stopped = new();
    private OpenedRun _opened = null!;

    private RunHost(RunServices services, WorkflowEngine engine, RunLock runLock) => (_services, _engine, _lock) = (services, engine, runLock);

    /// <summary>The run's row as it was opened.</summary>
    public RunRow Run => _opened.Run;

    /// <summary>True when an unfinished run was adopted.</summary>
    public bool Adopted => _opened.Adopted;

    /// <summary>What this command changed in an adopted run.</summary>
    public IReadOnlyList<string> Changes => _opened.Changes;

    /// <summary>What was found at the start and put right, one line each.</summary>
    public IReadOnlyList<string> Found { get; private set; } = [];

    /// <summary>The client, for questions while the run goes on.</summary>
    public WorkflowClient Client => _engine.Client;

    /// <summary>Sequence number of the last event before this command.</summary>
    public long FirstEvent { get; private set; }

    /// <summary>
    /// Checks everything that can be checked before the first task, takes the repository, ends what a dead run left, and adopts
    /// or creates the run.
    /// </summary>
    /// <exception cref="DroverException">Nothing was changed; the message is one line.</exception>
    public static async Task<RunHost> StartAsync(RunHostOptions options, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(options);
        (RunServices services, string target) = await CheckAsync(options, cancellationToken).ConfigureAwait(false);
        RunLock runLock = await RunLock.TakeAsync(services.Repository, options, cancellationToken).ConfigureAwait(false);
        WorkflowEngine? engine = null;
        try
        {
            List<string> found = [];
            services.Repository.EnsureExcluded();
            if (await services.Checkout.RepairAsync(cancellationToken).ConfigureAwait(false) is { } repaired)
                found.Add($"finished a half-done update of the checkout {repaired.Checkout}");
            if (options.ResumeOnly)
                await RequireWorkAsync(options, cancellationToken).ConfigureAwait(false);
            engine = CreateEngine(options, services);
            var host = new RunHost(services, engine, runLock) { Found = found };
            await engine.StartAsync(cancellationToken).ConfigureAwait(false);
            await host.OpenAsync(options, target, cancellationToken).ConfigureAwait(false);
            return host;
        }
        catch
        {
            if (engine is not null)
                await engine.DisposeAsync().ConfigureAwait(false);
            runLock.Dispose();
            throw;
        }
    }

    /// <summary>The checks of a start, without taking or changing anything: for <c>--dry-run</c> and <c>doctor</c>.</summary>
    public static async Task<string> CheckOnlyAsync(RunHostOptions options, CancellationToken cancellationToken = default) =>
        (await CheckAsync(options, cancellationToken).ConfigureAwait(false)).Target;

    // The checks change nothing, so a git that somebody killed under them is simply asked again.
    private static async Task<(RunServices Services, string Target)> CheckAsync(RunHostOptions options, CancellationToken cancellationToken)
    {
        for (int left = 3; ; left--)
        {
            try
            {
                return await CheckOnceAsync(options, cancellationToken).ConfigureAwait(false);
            }
            catch (GitException e) when (left > 0 && e.ExitCode is 137 or 143)
            {
                continue;
            }
        }
    }

    private static async Task<(RunServices Services, string Target)> CheckOnceAsync(RunHostOptions options, CancellationToken cancellationToken)
    {
        if (OperatingSystem.IsWindows())
            throw new DroverException(ErrorCode.InvalidInput, "the orchestrator does not run on Windows: use WSL");
        ProjectSettings settings = options.Settings;
        Repository repository = await Repository.OpenAsync(new GitClient(), options.Directory, cancellationToken).ConfigureAwait(false);
        _ = repository.Identity();
        string target = await repository.DetectTargetAsync(options.Given.Target ?? settings.Target, cancellationToken).ConfigureAwait(false);
        await Preflight.CheckAsync(repository, target, cancellationToken).ConfigureAwait(false);
        var services = new RunServices(repository, settings, KeeperCommand.Default, options.Time);
        GateCommand gate = services.GateCommandFor(null);
        string? path = Environment.GetEnvironmentVariable("PATH");
        if (gate.FindProgram(repository.Root, path) is null)
            throw new DroverException(ErrorCode.InvalidInput, $"the test command '{gate.Text}' names {gate.Argv[0]}, which is not there: correct testCommand with `drover config set`");
        services.Agent = AgentTypes.Create(settings.AgentType, settings.AgentPath, services.Keeper, options.Time);
        if (services.Agent.Check().Problem is { } problem)
            throw new DroverException(ErrorCode.InvalidInput, problem);
        return (services, target);
    }

    private static WorkflowEngine CreateEngine(RunHostOptions options, RunServices services)
    {
        string project = services.Project;
        var engineOptions = new WorkflowEngineOptions
        {
            Dialect = options.Dialect,
            ApplicationName = Protocol.Application(project),
            ApplicationVersion = Protocol.Version,
            Time = options.Time,
            OnExecutorDead = (dead, ct) => Leftovers.EndProcessesOfAsync(services, dead.Id, ct),
        };
        engineOptions.UseJson(RunJson.Default);
        engineOptions.Migrations.Add(BacklogSchema.Migrations);
        engineOptions.AddWorkflow(RunFlow.Definition).AddWorkflow(TaskFlow.Definition).AddWorkflow(LandingFlow.Definition);
        // The run itself admits at most as many tasks as it has workers; the queue's limit holds even if two runs disagreed.
        engineOptions.AddQueue(Protocol.TaskQueue(project, options.Given.Workers ?? Math.Max(services.Settings.Workers, 64)))
            .AddQueue(Protocol.LandingQueue(project)).AddQueue(Protocol.RunQueue(project));
        var engine = new WorkflowEngine(engineOptions, services, options.Logger);
        services.Client = engine.Client;
        services.ExecutorId = engine.ExecutorId;
        return engine;
    }

    private async Task OpenAsync(RunHostOptions options, string target, CancellationToken cancellationToken)
    {
        ProjectSettings settings = options.Settings;
        var defaults = new RunOptions { Workers = settings.Workers, MaxAttempts = settings.MaxAttempts, Target = target, ContinueOnFailure = true };
        await RefuseNewerProtocolAsync(cancellationToken).ConfigureAwait(false);
        await Leftovers.RemoveTemporaryFoldersAsync(_services, cancellationToken).ConfigureAwait(false);
        (int removed, IReadOnlyList<string> left) = await Leftovers.RemoveEndedWorktreesAsync(_services, cancellationToken).ConfigureAwait(false);
        Found = [.. Found, .. left];
        if (removed > 0)
            Found = [.. Found, $"removed {removed} worktrees of ended attempts (their bytes are under refs/drover/)"];
        _opened = await Client.TransactAsync(tx =>
        {
            FirstEvent = tx.Session.Number("SELECT event_seq FROM {d}projects WHERE project = @project", ("@project", settings.Project));
            RunOptions given = options.Given with { Target = options.Given.Target is null ? null : target };
            OpenedRun opened = Board.OpenRun(tx.Session, settings.Project, defaults, given, _engine.ExecutorId);
            string workflow = opened.Run.WorkflowId;
            if (tx.Status(workflow) is not { IsEnded: false })
            {
                workflow = $"drover:{settings.Project}:run:{opened.Run.Id}:{opened.Run.Generation}";
                tx.Session.Execute("UPDATE {d}runs SET workflow_id = @workflow WHERE project = @project AND id = @run",
                    ("@workflow", workflow), ("@project", settings.Project), ("@run", opened.Run.Id));
                tx.Enqueue(Protocol.RunQueue(settings.Project), RunFlow.Definition, new RunInput(settings.Project, opened.Run.Id), new() { WorkflowId = workflow });
            }
            else
            {
                tx.Send(workflow, "look", Protocol.TasksTopic);
            }
            // What was held is looked at anew: the user may have freed the checkout since.
            tx.Session.Execute("UPDATE {d}landings SET state = 'waiting', hold_reason = NULL, hold_paths = NULL WHERE project = @project AND state = 'held'",
                ("@project", settings.Project));
            // A candidate may have been left when the last lane ended with its process.
            if (Board.OpenCandidates(tx.Session, settings.Project, opened.Run.Target).Count > 0)
                LandingFlow.Wake(tx, settings.Project, opened.Run.Target);
            return opened with { Run = opened.Run with { WorkflowId = workflow } };
        }, cancellationToken).ConfigureAwait(false);
    }

    // Asked before the engine starts: what it recovers may already end the unfinished run.
    private static async Task RequireWorkAsync(RunHostOptions options, CancellationToken cancellationToken)
    {
        bool work = await options.Dialect.ReadAsync(options.Time, db => Board.ActiveRun(db, options.Settings.Project) is not null
            || db.Number("SELECT count(*) FROM {d}tasks WHERE project = @project AND status IN ('open', 'claimed', 'in_progress')",
                ("@project", options.Settings.Project)) > 0, cancellationToken).ConfigureAwait(false);
        if (!work)
            throw new DroverException(ErrorCode.NotFound, "there is nothing to resume: no unfinished run and no task that could run");
    }

    private async Task RefuseNewerProtocolAsync(CancellationToken cancellationToken)
    {
        IReadOnlyList<string?> versions = await Client.ReadAsync(db => db.Query("""
            SELECT DISTINCT application_version FROM {p}workflow_status WHERE application_name = @app AND status IN ('PENDING', 'ENQUEUED', 'DELAYED')
            """, r => r.TextOrNull(0), ("@app", Protocol.Application(_services.Project))), cancellationToken).ConfigureAwait(false);
        if (versions.Select(Protocol.NumberOf).Max() is { } newest && newest > Protocol.Current)
            throw new DroverException(ErrorCode.Database, $"the unfinished run was started by a newer drover (protocol {newest}, this one knows {Protocol.Current}): install the newer one");
    }

    /// <summary>Events of this run as they are recorded, and everything since this command began. Ends with the run.</summary>
    public async IAsyncEnumerable<EventRow> EventsAsync([EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        long after = FirstEvent;
        using var timer = new PeriodicTimer(TimeSpan.FromMilliseconds(150), _services.Time);
        while (true)
        {
            bool last = _completion is { IsCompleted: true } || _stopped.IsCancellationRequested;
            long from = after;
            foreach (EventRow row in await Client.ReadAsync(db => Board.EventsAfter(db, _services.Project, from), CancellationToken.None).ConfigureAwait(false))
            {
                after = row.Seq;
                if (row is { Task: { } task, Type: "task.completed" or "task.failed" or "task.retrying" or "task.paused" or "task.released" or "task.cancelled" })
                    _services.Live.EndAll(task);
                yield return row;
            }
            if (last)
                yield break;
            try
            {
                await timer.WaitForNextTickAsync(cancellationToken).ConfigureAwait(false);
            }
            catch (OperationCanceledException)
            {
                yield break;
            }
        }
    }

    /// <summary>What runs in this process now.</summary>
    public IReadOnlyList<WorkerView> Workers => _services.Live.Workers;

    /// <summary>Tasks in the run's scope by shown status.</summary>
    public ValueTask<IReadOnlyDictionary<ShownStatus, int>> CountsAsync(CancellationToken cancellationToken = default) =>
        Client.ReadAsync(db => Verdict(db).Counts, cancellationToken);

    private RunVerdict Verdict(SqlSession db) => Board.VerdictOf(db, _services.Project, Board.FindRun(db, _services.Project, Run.Id) ?? Run);

    private Task<RunReport>? _completion;

    /// <summary>Completes when the run has ended, or this process's part in it.</summary>
    public Task<RunReport> Completion => _completion ??= CompleteAsync();

    private async Task<RunReport> CompleteAsync()
    {
        using var either = CancellationTokenSource.CreateLinkedTokenSource(_stopped.Token, _engine.Lost);
        try
        {
            await Client.Handle<string>(Run.WorkflowId).ResultAsync(either.Token).ConfigureAwait(false);
            await CleanUpEndsAsync(either.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            // This process stops; the run stays unfinished and resumes.
        }
        return await Client.ReadAsync(db =>
        {
            RunRow run = Board.FindRun(db, _services.Project, Run.Id)!;
            RunVerdict verdict = Board.VerdictOf(db, _services.Project, run);
            // What was recorded at the end stands, whatever was added since.
            RunOutcome outcome = run.Active ? RunOutcome.Interrupted : run.Outcome switch
            {
                "finished" => RunOutcome.Finished,
                "finished-with-failures" => RunOutcome.FinishedWithFailures,
                "stalled" => RunOutcome.Stalled,
                _ => RunOutcome.Interrupted,
            };
            return new RunReport(run.Id, outcome, verdict.Counts, verdict.Waiting, outcome switch
            {
                RunOutcome.Finished => 0,
                RunOutcome.FinishedWithFailures => 1,
                RunOutcome.Stalled => 7,
                _ => 130,
            });
        }).ConfigureAwait(false);
    }

    // The last tasks' workflows still remove their worktrees when the run's outcome is recorded. What is not done within the
    // bound is done by the next start.
    private async Task CleanUpEndsAsync(CancellationToken cancellationToken)
    {
        long began = _services.Time.GetTimestamp();
        using var timer = new PeriodicTimer(TimeSpan.FromMilliseconds(20), _services.Time);
        string queue = Protocol.TaskQueue(_services.Project, 1).Name;
        while (_services.Time.GetElapsedTime(began) < TimeSpan.FromSeconds(20) && await Client.ReadAsync(db => db.Number("""
            SELECT EXISTS (SELECT 1 FROM {p}workflow_status WHERE queue_name = @queue AND status IN ('ENQUEUED', 'PENDING'))
            """, ("@queue", queue)), cancellationToken).ConfigureAwait(false) != 0)
        {
            await timer.WaitForNextTickAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>First interrupt: nothing new is started; what runs goes on to its end. Returns how many tasks run.</summary>
    public Task<int> RequestDrainAsync() => Client.TransactAsync(tx =>
    {
        Board.DrainRun(tx.Session, _services.Project, Run.Id);
        TaskFlow.TellRun(tx, _services.Project, "drain");
        return (int)tx.Session.Number("SELECT count(*) FROM {d}tasks WHERE project = @project AND status IN ('claimed', 'in_progress')", ("@project", _services.Project));
    });

    /// <summary>
    /// Second interrupt: agents are asked to end, then ended; their worktrees stay as they are, and nothing counts as an attempt.
    /// The next start goes on from there.
    /// </summary>
    public async Task StopAgentsAsync()
    {
        try
        {
            // Bounded: a full disk must not keep the agents from being asked to end.
            await Client.TransactAsync(tx => Board.DrainRun(tx.Session, _services.Project, Run.Id)).WaitAsync(TimeSpan.FromSeconds(2), _services.Time).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            // The engine's stop below says it as well: nothing new is claimed.
        }
        await _engine.StopAsync().ConfigureAwait(false);
        await _stopped.CancelAsync().ConfigureAwait(false);
    }

    /// <summary>Stops what still runs and gives the repository back.</summary>
    public async ValueTask DisposeAsync()
    {
        try
        {
            await _engine.StopAsync().ConfigureAwait(false);
            await _stopped.CancelAsync().ConfigureAwait(false);
            if (_completion is not null)
                await ((Task)_completion).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
        finally
        {
            await _engine.DisposeAsync().ConfigureAwait(false);
            _lock.Dispose();
            _stopped.Dispose();
        }
    }
}
