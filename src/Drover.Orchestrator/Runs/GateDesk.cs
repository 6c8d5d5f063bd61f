using System.Collections.Concurrent;
using Drover.Orchestrator.Backlog;
using Drover.Orchestrator.CodingAgents;
using Drover.Orchestrator.Gates;
using Drover.Orchestrator.Git;
using Drover.Workflows;
using GateEvidence = Drover.Orchestrator.Backlog.GateResult;
using GateRun = Drover.Orchestrator.Gates.GateResult;

namespace Drover.Orchestrator.Runs;

/// <summary>What a gate showed about one exact tree.</summary>
internal sealed record GateVerdictOnTree(bool Passed, bool Broken, string Output);

/// <summary>Tests exact trees, each once: evidence is kept by tree, command and gate settings.</summary>
internal sealed class GateDesk(RunServices services)
{
    private readonly ConcurrentBag<int> _freeSlots = [];
    private int _slots;

    /// <summary>The kept verdict, or a run of the command in a gate worktree set to the tree.</summary>
    public async Task<GateVerdictOnTree> TestAsync(string tree, string? taskCommand, string task, int attempt, CancellationToken cancellationToken)
    {
        GateCommand command = services.GateCommandFor(taskCommand);
        string commandDigest = RunServices.Digest(command.Text);
        string settingsDigest = RunServices.Digest(
            string.Join('\n', services.Settings.GateKeep), services.Settings.WorktreeSetup ?? "", string.Join('\n', services.Settings.EnvironmentPass));
        GateEvidence? known = await services.Client.ReadAsync(db =>
            Board.FindGate(db, services.Project, tree, commandDigest, settingsDigest), cancellationToken).ConfigureAwait(false);
        // Only a pass is reused. A red may have come from its surroundings, and the next attempt's identical tree deserves its own test.
        if (known is { Passed: true })
            return new GateVerdictOnTree(true, false, known.Output ?? "");

        int slot = _freeSlots.TryTake(out int free) ? free : Interlocked.Increment(ref _slots) - 1;
        try
        {
            services.Live.Note(task, attempt, "testing", command.Text);
            GateRun result = await RunAsync(slot, tree, command, task, attempt, cancellationToken).ConfigureAwait(false);
            if (result.Verdict == GateVerdict.Interrupted)
                throw new OperationCanceledException("the gate was interrupted", cancellationToken);
            string output = string.IsNullOrWhiteSpace(result.Tail) ? result.Problem ?? "" : result.Tail;
            if (result is { Signal: { } signal, Clock: null })
                throw new DroverException(ErrorCode.External, $"the test command of {task} was ended by signal {signal} from outside");
            if (result.Verdict == GateVerdict.Broken)
                return new GateVerdictOnTree(false, true, result.Problem ?? output);
            await services.Client.TransactAsync(tx =>
            {
                Board.RecordGate(tx.Session, services.Project, new GateEvidence(
                    tree, commandDigest, settingsDigest, result.Passed, result.ExitCode, output, (long)result.Duration.TotalMilliseconds, task, attempt));
                return true;
            }, CancellationToken.None).ConfigureAwait(false);
            return new GateVerdictOnTree(result.Passed, false, output);
        }
        finally
        {
            _freeSlots.Add(slot);
        }
    }

    private async Task<GateRun> RunAsync(int slot, string tree, GateCommand command, string task, int attempt, CancellationToken cancellationToken)
    {
        GateSetup setup = new(services, slot);
        string folder = await services.GateFolder.PrepareAsync(
            slot, tree, [.. services.Settings.GateKeep, .. setup.Kept(services.GateFolder.PathOf(slot))], cancellationToken).ConfigureAwait(false);
        // A set-up that fails says nothing about the tree.
        if (await setup.RunAsync(folder, task, attempt, cancellationToken).ConfigureAwait(false) is { } failed)
            return failed.Verdict == GateVerdict.Interrupted ? failed : failed with { Verdict = GateVerdict.Broken, Signal = null, Problem = "worktree.setup failed: " + failed.Problem };
        string token = NewToken(task, attempt);
        return await RecordedAsync(token, task, attempt, "gate", hooks => GateRunner.RunAsync(new GateRequest
        {
            Command = command,
            Folder = folder,
            LogPath = services.State("logs", $"{task}-{attempt}.gate.log"),
            TmpDir = services.State("tmp", token),
            RunToken = token,
            Environment = services.Environment,
            Clocks = new ProcessClocks(null, null, services.Settings.GateTimeout),
            Keeper = services.Keeper,
            Facts = services.GateFolder.Environment,
        }, hooks, services.Time, cancellationToken)).ConfigureAwait(false);
    }

    /// <summary>Runs <c>worktree.setup</c> in a folder, contained like a gate.</summary>
    public Task<GateRun> SetUpAsync(GateCommand command, string folder, string log, string task, int attempt, CancellationToken cancellationToken)
    {
        string token = NewToken(task, attempt);
        return RecordedAsync(token, task, attempt, "setup", hooks => SetupCommand.RunAsync(new GateRequest
        {
            Command = command,
            Folder = folder,
            LogPath = services.State("logs", log),
            TmpDir = services.State("tmp", token),
            RunToken = token,
            Environment = services.Environment,
            Clocks = new ProcessClocks(null, null, services.Settings.SetupTimeout),
            Keeper = services.Keeper,
        }, hooks, services.Time, cancellationToken));
    }

    public static string NewToken(string task, int attempt) => $"{task}-{attempt}-{Guid.CreateVersion7():N}";

    /// <summary>Runs a contained process with its row written before it exists and closed after its tree is gone.</summary>
    public async Task<T> RecordedAsync<T>(string token, string task, int attempt, string kind, Func<AgentHooks, Task<T>> run)
    {
        var hooks = new AgentHooks
        {
            OnReady = keeper => services.Client.TransactAsync(tx =>
            {
                Board.RecordProcess(tx.Session, services.Project, new ProcessRow(token, task, attempt, kind, services.ExecutorId,
                    keeper.BootId, keeper.PidNamespace, keeper.Pid, keeper.StartTicks));
                return true;
            }),
            OnLine = line => services.Live.Line(task, attempt, line.Text),
        };
        T result = await run(hooks).ConfigureAwait(false);
        await services.Client.TransactAsync(tx =>
        {
            Board.EndProcess(tx.Session, services.Project, token, kind);
            return true;
        }).ConfigureAwait(false);
        Discard(services.State("tmp", token));
        return result;
    }

    // Only our own temporary folder, named by our token; a link in it is removed, not followed.
    // What cannot be removed (another user's files) is tried again by the next start; it is nobody's failure.
    public static void Discard(string folder)
    {
        try
        {
            if (Directory.Exists(folder))
                Posix.Delete(folder);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return;
        }
    }
}
