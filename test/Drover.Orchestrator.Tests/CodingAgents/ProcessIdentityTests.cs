using System.Diagnostics;
using Drover.Orchestrator.CodingAgents;

namespace Drover.Orchestrator.Tests.CodingAgents;

public sealed class ProcessIdentityTests
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task X03_a_process_is_recognised_by_more_than_its_number()
    {
        using var sleeper = Process.Start("sleep", ["3600"]);
        var identity = ProcessIdentity.Of(sleeper.Id)!;
        Assert.Equal(identity, ProcessIdentity.Parse(identity.ToString()));
        Assert.True(identity.IsAlive);

        var earlier = identity with { StartTicks = identity.StartTicks - 1 };
        var otherBoot = identity with { BootId = Guid.NewGuid().ToString() };
        var elsewhere = identity with { PidNamespace = "pid:[1]" };
        Assert.Equal(ProcessPresence.Dead, earlier.Look());
        Assert.Equal(ProcessPresence.Dead, otherBoot.Look());
        Assert.Equal(ProcessPresence.Unknown, elsewhere.Look());
        foreach (var wrong in (ProcessIdentity[])[earlier, otherBoot, elsewhere])
        {
            Assert.False(wrong.Kill());
            Assert.Empty(await ProcessSweep.KillIdentityAsync(wrong, TimeProvider.System, Token));
        }
        Assert.True(identity.IsAlive);

        Assert.True(identity.Kill(Native.SigStop));
        Assert.True(await ContainedTestFolder.EventuallyAsync(() => identity.Look() == ProcessPresence.Stopped, Token));
        Assert.True(identity.IsAlive);
        Assert.Empty(await ProcessSweep.KillIdentityAsync(identity, TimeProvider.System, Token));
        Assert.Equal(ProcessPresence.Dead, identity.Look());
        Assert.False(identity.Kill());
    }

    [Fact]
    public async Task X04_a_sweep_by_identity_takes_the_descendants()
    {
        using var own = Process.Start(new ProcessStartInfo("sh", ["-c", "echo $$; sleep 3600 & sleep 3600 & wait"]) { RedirectStandardOutput = true })!;
        var pid = int.Parse((await own.StandardOutput.ReadLineAsync(Token))!, System.Globalization.CultureInfo.InvariantCulture);
        Assert.Equal(own.Id, pid);
        Assert.True(await ContainedTestFolder.EventuallyAsync(() => ProcessTable.ReadAll().Count(entry => entry.Parent == pid) == 2, Token));
        var children = ProcessTable.ReadAll().Where(entry => entry.Parent == pid).Select(entry => ProcessIdentity.Of(entry.Pid, entry.StartTicks)).ToList();
        Assert.Empty(await ProcessSweep.KillIdentityAsync(ProcessIdentity.Of(pid)!, TimeProvider.System, Token));
        Assert.DoesNotContain(children, child => child.IsAlive);
    }

    [Fact]
    public void The_current_process_is_alive_and_an_odd_text_is_no_identity()
    {
        Assert.Equal(Environment.ProcessId, ProcessIdentity.Current.Pid);
        Assert.True(ProcessIdentity.Current.IsAlive);
        Assert.Null(ProcessIdentity.Parse(null));
        Assert.Null(ProcessIdentity.Parse("a/b/c/d"));
        Assert.Null(ProcessIdentity.Of(int.MaxValue));
    }
}
