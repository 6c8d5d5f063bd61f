using Drover.TestKit;
using Drover.Workflows.Sqlite;

namespace Drover.Workflows.Tests.Crash;

/// <summary>Processes that are stopped, taken over, and wake again.</summary>
[Trait("Speed", "slow")]
public sealed class FencingTests
{
    private static readonly string[] Kinds = ["step", "transact", "sleep", "send", "receive", "outcome", "continue"];

    private static async Task<(ChildProcess Child, string Executor)> AtGatesAsync(ChaosRun run, params (string Name, string? Value)[] environment)
    {
        ChildProcess child = run.Start("gates", [], environment);
        string executor = (await child.LineAsync("ready")).Split(' ')[1];
        await Eventually.TrueAsync(() => run.Ledger().Count(e => e.Step == "at-gate") == Kinds.Length, $"every workflow is at its gate: {child.Errors}");
        return (child, executor);
    }

    // A process stopped in the middle of a commit holds the commit lock, and everybody waits for it: SQLite's own lock is no different.
    private static Task StopOutsideCommitAsync(ChaosRun run, ChildProcess child) => Eventually.TrueAsync(() =>
    {
        child.Stop();
        if (!File.ReadLines($"/proc/{child.Id}/status").Any(l => l.StartsWith("State:\tT", StringComparison.Ordinal)))
            return false;
        using FileLock commit = FileLock.Open(run.Database + ".lock");
        if (commit.TryTake())
        {
            commit.Release();
            return true;
        }
        child.Continue();
        return false;
    }, "the child is stopped outside a commit");

    [Fact]
    public async Task F7_P8_a_stopped_executor_keeps_its_work_and_finishes_when_it_goes_on()
    {
        using var run = new ChaosRun();
        (ChildProcess first, string executor) = await AtGatesAsync(run);
        await StopOutsideCommitAsync(run, first);
        ChildProcess other = run.Start("other", []);
        Assert.Equal("other other", await other.LineAsync("other"));
        Assert.Equal(0, await other.ExitAsync());
        var held = await run.ReadAsync(s => s.Query("SELECT workflow_uuid FROM workflow_status WHERE status = 'PENDING' AND executor_id = @e",
            r => r.GetString(0), ("@e", executor)));
        Assert.Equal(Kinds.Length + 1, held.Count);
        Assert.DoesNotContain(run.Ledger(), e => e.ProcessId == other.Id && e.Workflow.StartsWith("gate", StringComparison.Ordinal));
        run.Go();
        first.Continue();
        Assert.Equal(0, await first.ExitAsync());
        Assert.Contains("gate-continue again", first.Lines);
        Assert.Contains("lost False", first.Lines);
        Assert.All(run.Ledger().Where(e => e.Workflow.StartsWith("gate", StringComparison.Ordinal)), e => Assert.Equal(first.Id, e.ProcessId));
    }

    [Fact]
    public async Task P8_I5_an_executor_taken_over_on_request_is_refused_every_write_when_it_wakes()
    {
        using var run = new ChaosRun();
        (ChildProcess zombie, string executor) = await AtGatesAsync(run, ("CHAOS_AWAIT_LOST", "1"));
        await StopOutsideCommitAsync(run, zombie);
        run.Go();
        ChildProcess heir = run.Start("recover", [executor]);
        Assert.Equal($"taken {Kinds.Length + 1}", await heir.LineAsync("taken"));
        Assert.Equal(0, await heir.ExitAsync());
        var before = await SnapshotAsync(run);
        zombie.Continue();
        int exit = await zombie.ExitAsync();
        Assert.True(exit == 0, $"the zombie ended with {exit}: {zombie.Errors}");

        // It learned the outcomes of the others, and that it may start nothing more.
        foreach (string line in heir.Lines.Where(l => l.StartsWith("gate-", StringComparison.Ordinal)))
            Assert.Contains(line, zombie.Lines);
        Assert.Contains("late Unavailable", zombie.Lines);
        Assert.Equal(before, await SnapshotAsync(run));
        Assert.Equal(1, await run.ReadAsync(s => s.Number("SELECT count(*) FROM chaos_rows WHERE name = 'gate'")));
        Assert.Equal(1, await run.ReadAsync(s => s.Number("SELECT count(*) FROM notifications WHERE destination_uuid = 'sink'")));
        Assert.Equal(1, await run.ReadAsync(s => s.Number("SELECT count(*) FROM workflow_status WHERE workflow_uuid LIKE 'gate-continue:%'")));
        Assert.Equal(0, await run.ReadAsync(s => s.Number("SELECT count(*) FROM workflow_status WHERE status IN ('PENDING', 'ENQUEUED')")));
        Assert.Single(run.Ledger(), e => e.Step == "again");
    }

    // Everything the engine records, with the times at which it did.
    private static Task<string> SnapshotAsync(ChaosRun run) => run.ReadAsync(s => string.Join('\n', [
        .. s.Query("SELECT workflow_uuid || status || COALESCE(completed_at, '') || COALESCE(owner_xid, '-') FROM workflow_status ORDER BY 1", r => r.GetString(0)),
        .. s.Query("SELECT workflow_uuid || function_id || function_name || COALESCE(output, '') || completed_at_epoch_ms FROM operation_outputs ORDER BY 1", r => r.GetString(0)),
        .. s.Query("SELECT message_uuid || consumed FROM notifications ORDER BY 1", r => r.GetString(0)),
        .. s.Query("SELECT workflow_uuid || COALESCE(output, '') FROM workflow_output ORDER BY 1", r => r.GetString(0)),
        .. s.Query("SELECT workflow FROM chaos_rows ORDER BY 1", r => r.GetString(0))]));

    [Fact]
    public async Task A_workflow_that_kills_its_process_goes_to_the_dead_letter_after_its_limit()
    {
        using var run = new ChaosRun();
        int kills = 0;
        while (true)
        {
            ChildProcess child = run.Start("poison", []);
            int exit = await child.ExitAsync();
            if (exit == 137)
            {
                Assert.True(++kills <= 4, "the poison is never dead-lettered");
                continue;
            }
            Assert.Contains("is in the dead-letter state", child.Errors, StringComparison.Ordinal);
            break;
        }
        Assert.Equal("MAX_RECOVERY_ATTEMPTS_EXCEEDED", await run.ReadAsync(s => s.Text("SELECT status FROM workflow_status WHERE workflow_uuid = 'poison'")));
        Assert.Equal(3, run.Ledger().Count(e => e.Step == "kill"));
        Assert.Equal(1, run.Ledger().Count(e => e.Step == "before"));
    }
}
