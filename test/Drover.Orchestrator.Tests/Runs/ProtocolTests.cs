using Drover.Orchestrator.Backlog;
using Drover.Orchestrator.Runs;
using Drover.TestKit;
using Drover.Workflows;

namespace Drover.Orchestrator.Tests.Runs;

/// <summary>Drover is exchanged in the middle of a run: an older protocol goes on from the rows, a newer one is refused.</summary>
[Trait("Speed", "slow")]
public sealed class ProtocolTests
{
    private const string Live = "status IN ('PENDING', 'ENQUEUED', 'DELAYED')";

    // A run that was stopped while its agent worked: once.txt is there, two.txt comes when the file "go" does.
    private static async Task<string> StoppedRunAsync(RunFixture repo)
    {
        repo.Script("echo x >> once.txt\ntouch \"$state/began\"\nuntil_file go\necho y > two.txt\necho did it");
        string task = await repo.AddAsync("Live through an upgrade");
        await using (RunHost host = await repo.StartAsync())
        {
            await Eventually.TrueAsync(() => File.Exists(repo.State("began")), "the agent works");
            await host.StopAgentsAsync();
            Assert.Equal(130, (await host.Completion).ExitCode);
        }
        File.WriteAllText(repo.State("go"), "");
        return task;
    }

    private static Task<int> RewriteAsync(RunFixture repo, string version, string which) => repo.BacklogAsync(tx =>
        tx.Session.Execute("UPDATE {p}workflow_status SET application_version = @v WHERE " + Live + " AND " + which, ("@v", version)));

    [Theory]
    [InlineData("name = 'ExecuteTaskWorkflow'", 1)]
    // The whole program was older: its run and its task, both unfinished.
    [InlineData("name IN ('ExecuteTaskWorkflow', 'DroverRunWorkflow')", 2)]
    public async Task An_older_protocol_goes_on_from_the_rows_as_the_same_attempt(string which, int rows)
    {
        await using var repo = new RunFixture();
        string task = await StoppedRunAsync(repo);
        Assert.Equal(rows, await RewriteAsync(repo, "drover-0", which));
        RunReport report = await repo.RunAsync();
        Assert.Equal(0, report.ExitCode);
        Assert.Equal([task], repo.Landed());
        TaskRow row = await repo.TaskAsync(task);
        Assert.Equal((StoredStatus.Completed, 1, 1), (row.Status, row.Attempts, row.Consumed));
        Assert.Equal($"drover:{repo.Project}:task:{task}:1.r1", row.WorkflowId);
        // The same worktree: the first turn's line is still in the file, and the second turn added its own.
        Assert.Equal("x\nx\n", File.ReadAllText(Path.Combine(repo.Root, "once.txt")));
        List<string> old = await repo.BacklogAsync(tx => tx.Session.Query(
            "SELECT status FROM {p}workflow_status WHERE application_version = 'drover-0'", r => r.GetString(0)));
        Assert.Equal(rows, old.Count);
        Assert.All(old, status => Assert.Equal("CANCELLED", status));
    }

    [Fact]
    public async Task A_lane_of_an_older_protocol_does_not_keep_the_target()
    {
        await using var repo = new RunFixture();
        File.WriteAllText(Path.Combine(repo.Root, "README.md"), "the user is editing\n");
        string task = await repo.AddAsync("Change the readme too", "fake: edit README.md \"agent\"");
        // Held by the checkout: the lane lives on when the run ends.
        Assert.Equal(7, (await repo.RunAsync()).ExitCode);
        Assert.Equal(1, await RewriteAsync(repo, "drover-0", "name = 'LandingWorkflow'"));
        repo.Git("checkout", "README.md");
        Assert.Equal(0, (await repo.RunAsync()).ExitCode);
        Assert.Equal([task], repo.Landed());
    }

    [Fact]
    public async Task A_newer_protocol_is_refused_naming_both_numbers()
    {
        await using var repo = new RunFixture();
        string task = await StoppedRunAsync(repo);
        Assert.Equal(1, await RewriteAsync(repo, "drover-99", "name = 'ExecuteTaskWorkflow'"));
        var refused = await Assert.ThrowsAsync<DroverException>(() => repo.StartAsync());
        Assert.Equal(ErrorCode.Database, refused.Code);
        Assert.Contains("protocol 99", refused.Message, StringComparison.Ordinal);
        Assert.Contains($"knows {Protocol.Current}", refused.Message, StringComparison.Ordinal);
        // Nothing was touched: the newer program goes on where it was.
        Assert.Equal(1, await RewriteAsync(repo, Protocol.Version, "name = 'ExecuteTaskWorkflow' AND application_version = 'drover-99'"));
        Assert.Equal(0, (await repo.RunAsync()).ExitCode);
        Assert.Equal([task], repo.Landed());
        Assert.Equal($"drover:{repo.Project}:task:{task}:1", (await repo.TaskAsync(task)).WorkflowId);
    }
}
