using Drover.Orchestrator.Git;
using Drover.Workflows;

namespace Drover.Orchestrator.Tests.Git;

public sealed class GitClientTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Cancelling_ends_the_process()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var slow = Path.Combine(repo.Top, "slow");
        var pidFile = Path.Combine(repo.Top, "pid");
        File.WriteAllText(slow, $"#!/bin/sh\necho $$ > '{pidFile}.tmp'; mv '{pidFile}.tmp' '{pidFile}'\nexec sleep 600\n");
        File.SetUnixFileMode(slow, (UnixFileMode)0b111_101_101);
        using var cancel = CancellationTokenSource.CreateLinkedTokenSource(Ct);
        var run = repo.Client(slow).RunAsync(new GitScope { Directory = repo.Root }, ["x"], cancel.Token);
        await WaitAsync(() => File.Exists(pidFile));
        await cancel.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => run);
        var pid = File.ReadAllText(pidFile).Trim();
        await WaitAsync(() => !File.Exists($"/proc/{pid}/stat") || File.ReadAllText($"/proc/{pid}/stat").Contains(") Z", StringComparison.Ordinal));
    }

    [Fact]
    public async Task G15_environment_is_cleared_and_hermetic()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var show = Path.Combine(repo.Top, "show");
        File.WriteAllText(show, "#!/bin/sh\nenv\n");
        File.SetUnixFileMode(show, (UnixFileMode)0b111_101_101);
        var environment = (await repo.Client(show).RunAsync(repo.Repository.Hermetic.Scope(repo.Root, "/i"), [], Ct)).Text.Split('\n');
        Assert.Contains("GIT_CONFIG_NOSYSTEM=1", environment);
        Assert.Contains("GIT_CONFIG_GLOBAL=/dev/null", environment);
        Assert.Contains("LC_ALL=C", environment);
        Assert.Contains("GIT_INDEX_FILE=/i", environment);
        Assert.DoesNotContain(environment, l => l.StartsWith("HOME=", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Failures_are_one_line_with_command_and_reason()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var error = await Assert.ThrowsAsync<GitException>(() => repo.Repository.Git.RunAsync(repo.Repository.Real, ["cat-file", "blob", "nope"], Ct));
        Assert.Equal(ErrorCode.External, error.Code);
        Assert.Equal("git cat-file blob nope ended with 128: fatal: Not a valid object name nope", error.Message);
        var missing = await Assert.ThrowsAsync<DroverException>(() => repo.Client("/nowhere/git").RunAsync(repo.Repository.Real, ["x"], Ct));
        Assert.Contains("git cannot be started", missing.Message, StringComparison.Ordinal);
    }

    private static async Task WaitAsync(Func<bool> condition)
    {
        using var timer = new PeriodicTimer(TimeSpan.FromMilliseconds(5));
        for (var i = 0; i < 12_000 && !condition(); i++)
            await timer.WaitForNextTickAsync(Ct);
        Assert.True(condition());
    }
}
